"""The digest of what a service is started with, and its place in the service's definition."""

import pytest
from ansible_collections.smolcluster.logging.plugins.filter.to_plist import to_plist
from ansible_collections.smolcluster.logging.plugins.module_utils.deployment import digest_of, with_digest
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError

FILES = {"/etc/a.yml": "a: 1", "/etc/b.service": "[Service]\nEnvironment=SMOLCLUSTER_DEPLOYMENT=digest\n"}


def test_digest_depends_on_version_paths_and_texts_only():
    digest = digest_of("1.0", FILES)
    assert len(digest) == 16
    assert digest == digest_of("1.0", dict(reversed(FILES.items())))
    others = [
        digest_of("1.1", FILES),
        digest_of("1.0", FILES | {"/etc/a.yml": "a: 2"}),
        digest_of("1.0", {f"/srv{path}": text for path, text in FILES.items()}),
    ]
    assert len({digest, *others}) == 4


def test_digest_is_written_to_a_systemd_unit_and_to_a_launchd_job():
    assert with_digest(FILES["/etc/b.service"], "0a1b") == "[Service]\nEnvironment=SMOLCLUSTER_DEPLOYMENT=0a1b\n"
    job = {"EnvironmentVariables": {"SMOLCLUSTER_DEPLOYMENT": "digest", "GOMAXPROCS": "2"}}
    wanted = {"EnvironmentVariables": {"SMOLCLUSTER_DEPLOYMENT": "0a1b", "GOMAXPROCS": "2"}}
    assert with_digest(to_plist(job), "0a1b") == to_plist(wanted)


def test_definition_without_the_variable_is_refused():
    with pytest.raises(DeploymentError, match="does not set SMOLCLUSTER_DEPLOYMENT"):
        with_digest("[Service]\n", "0a1b")
