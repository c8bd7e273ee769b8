"""What the modules do on a node: archives, units, processes, ports, Loki's answers."""

from __future__ import annotations

import json
import os
import plistlib
import socket
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import archive, logcli, ownership
from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail as promtail_agent
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import Folder
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux

PROGRAM = "#!/bin/sh\nexit 0\n"


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command as AnsibleModule.run_command does."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def zip_of(path: Path, **files: str) -> Path:
    """Make a zip of files."""
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path


def test_archive_is_unpacked_and_counts_as_installed_until_it_is_damaged(tmp_path):
    home = tmp_path / "opt"
    packed = zip_of(tmp_path / "promtail-linux-amd64.zip", **{"promtail-linux-amd64": PROGRAM})
    version = home / "3.6.11"
    for _ in range(2):
        folder = Folder(version, archive.unpack(packed, version, promtail_agent, run))
        assert folder.needed()
        folder.apply()
        folder.commit()
        assert archive.origin_of(home, "3.6.11", "promtail")["sha256"] == archive.digest(packed)
        (version / "promtail").write_text("damaged")
        assert archive.origin_of(home, "3.6.11", "promtail") == {}
    assert sorted(path.name for path in home.iterdir()) == ["3.6.11"]


def test_unpacked_version_gives_way_to_the_one_before_it(tmp_path):
    version = tmp_path / "3.6.11"
    old, new = (zip_of(tmp_path / f"{name}.zip", promtail=f"{PROGRAM}# {name}\n") for name in ("old", "new"))
    Folder(version, archive.unpack(old, version, promtail_agent, run)).apply()
    folder = Folder(version, archive.unpack(new, version, promtail_agent, run))
    folder.apply()
    assert archive.origin_of(tmp_path, "3.6.11", "promtail")["sha256"] == archive.digest(new)
    folder.rollback()
    assert archive.origin_of(tmp_path, "3.6.11", "promtail")["sha256"] == archive.digest(old)
    Folder(version, archive.unpack(new, version, promtail_agent, run)).rollback()  # it was never moved into place
    assert archive.origin_of(tmp_path, "3.6.11", "promtail")["sha256"] == archive.digest(old)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["3.6.11"]


def test_archive_with_another_digest_than_expected_is_not_unpacked(tmp_path):
    packed = zip_of(tmp_path / "promtail-linux-amd64.zip", promtail=PROGRAM)
    with pytest.raises(DeploymentError, match="is not the archive that was verified: its SHA-256 is"):
        archive.unpack(packed, tmp_path / "opt/3.6.11", promtail_agent, run, "0" * 64)
    assert not (tmp_path / "opt").exists()
    made = archive.unpack(packed, tmp_path / "opt/3.6.11", promtail_agent, run, archive.digest(packed))
    Folder(tmp_path / "opt/3.6.11", made).apply()
    origin = {"name": "promtail-linux-amd64.zip", "sha256": archive.digest(packed)}
    assert archive.origin_of(tmp_path / "opt", "3.6.11", "promtail") == origin


def test_installed_version_is_the_only_one_and_a_bad_archive_changes_nothing(tmp_path):
    for version in ("3.7.7", "3.7.8"):
        packed = zip_of(tmp_path / "logcli-linux-amd64.zip", **{"logcli-linux-amd64": PROGRAM})
        archive.install(packed, tmp_path / version, logcli, run, archive.digest(packed))
        assert [path.name for path in tmp_path.iterdir()] == [version]
        assert stat.S_IMODE((tmp_path / version / "logcli").stat().st_mode) == 0o755
    packed = zip_of(tmp_path / "logcli-linux-amd64.zip", logcli="not a program")
    with pytest.raises(DeploymentError, match="does not start on this node"):
        archive.install(packed, tmp_path / "3.7.9", logcli, run)
    assert archive.origin_of(tmp_path, "3.7.8", "logcli")["name"] == "logcli-linux-amd64.zip"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
def test_program_of_an_account_is_copied_with_no_more_rights_than_it_has(tmp_path):
    account, version = (65534, 65534), tmp_path / "opt/homebrew"
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        program, secret = Path(name) / "promtail", Path(name) / "secret"
        program.write_text(PROGRAM)
        Folder(version, archive.copy_of(str(program), account, version, promtail_agent, run)).apply()
        assert (version / "promtail").stat().st_uid == 0
        assert archive.origin_of(version.parent, "homebrew", "promtail") == {
            "name": str(program),
            "sha256": archive.digest(program),
        }
        program.unlink()
        secret.touch(0o600)
        program.symlink_to(secret)
        with pytest.raises(DeploymentError, match=r"the account that owns \S+ cannot read it"):
            archive.copy_of(str(program), account, version, promtail_agent, run)
        program.unlink()
        for kind in (stat.S_IFIFO, stat.S_IFCHR):
            os.mknod(program, kind | 0o644, os.makedev(1, 5))
            with pytest.raises(DeploymentError, match=r"is not a regular file\. Install it again"):
                archive.copy_of(str(program), account, version, promtail_agent, run)
            program.unlink()
        program.symlink_to("/etc")
        with pytest.raises(DeploymentError, match="is not a regular file"):
            archive.copy_of(str(program), account, version, promtail_agent, run)
    assert [path.name for path in version.parent.iterdir()] == ["homebrew"]


def test_home_is_ours_by_its_mark(tmp_path):
    assert ownership.owner_of_home(tmp_path / "none") == "absent"
    (tmp_path / "promtail-linux-amd64.zip").touch()
    assert ownership.owner_of_home(tmp_path) == "absent"
    (tmp_path / "bin").mkdir()
    assert ownership.owner_of_home(tmp_path) == "foreign"
    (tmp_path / ownership.MARKER).touch()
    assert ownership.owner_of_home(tmp_path) == "ours"


def test_unit_of_somebody_else_is_found_where_the_system_has_it(tmp_path):
    ours, theirs = tmp_path / "ours.service", tmp_path / "theirs.service"
    theirs.write_text("[Service]\n")
    assert ownership.foreign_unit(ours, "") is None
    assert ownership.foreign_unit(ours, str(theirs)) == str(theirs)
    ours.write_text(f"# {ownership.MARK}\n[Service]\n")
    assert ownership.foreign_unit(ours, str(ours)) is None
    assert ownership.foreign_unit(theirs, str(theirs)) == str(theirs)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"promtail": "#!/bin/sh\necho no such library >&2; exit 1\n"}, "does not start on this node: no such library"),
        ({"a": "", "b": ""}, "contains 2 files"),
        ({"promtail": "\x7fELF of another machine"}, "does not start on this node"),
    ],
)
def test_bad_archive_leaves_nothing(tmp_path, files, words):
    packed = zip_of(tmp_path / "promtail.zip", **files)
    with pytest.raises(DeploymentError, match=words):
        archive.unpack(packed, tmp_path / "opt" / "3.6.11", promtail_agent, run)
    assert list((tmp_path / "opt").iterdir()) == []


def test_damaged_archive_is_told(tmp_path):
    (tmp_path / "promtail.zip").write_text("no zip")
    with pytest.raises(DeploymentError, match="is not a zip archive"):
        archive.unpack(tmp_path / "promtail.zip", tmp_path / "opt" / "3.6.11", promtail_agent, run)
    with pytest.raises(DeploymentError, match="is not on this node"):
        archive.unpack(tmp_path / "other.zip", tmp_path / "opt" / "3.6.11", promtail_agent, run)


def test_every_scrape_config_is_checked_alone_and_positions_are_spared(tmp_path):
    seen = tmp_path / "seen"
    program = tmp_path / "promtail"
    # A stand-in for Promtail that keeps what it was given and refuses the source `bad`.
    program.write_text(
        f'#!/bin/sh\nfor word; do file=${{word#-config.file=}}; done\ncat "$file" >> {seen}; echo >> {seen}\n'
        '! grep -q \'"bad"\' "$file" || { echo "error: no such stage" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    config = {
        "positions": {"filename": "/var/lib/promtail/positions.yaml", "ignore_invalid_yaml": True},
        "scrape_configs": [{"job_name": "good"}, {"job_name": "bad"}],
    }
    with pytest.raises(DeploymentError, match="refuses the source bad: error: no such stage"):
        promtail_agent.check_config(program, config, run)
    given = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [[scrape["job_name"] for scrape in one["scrape_configs"]] for one in given] == [["good"], ["bad"]]
    assert all(one["positions"]["filename"] != "/var/lib/promtail/positions.yaml" for one in given)


def test_listener_is_found_with_its_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert linux.listener(port)["pid"] == os.getpid()
    assert linux.listener(port) is None


def test_own_process_is_seen_and_a_gone_one_is_not():
    assert os.getpid() in linux.command_lines()
    assert linux.environment(os.getpid())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert linux.command_line(ended.pid) == []
    assert linux.environment(ended.pid) == {}
    assert linux.executable(ended.pid) is None


def test_property_list_of_ours_is_known_in_its_binary_form_too(tmp_path):
    unit = tmp_path / "job.plist"
    unit.write_bytes(plistlib.dumps({"Label": "a", "Note": ownership.MARK}, fmt=plistlib.FMT_BINARY))
    assert ownership.foreign_unit(unit, "") is None
    unit.write_bytes(plistlib.dumps({"Label": "a"}, fmt=plistlib.FMT_BINARY))
    assert ownership.foreign_unit(unit, "") == str(unit)
    unit.unlink()
    unit.mkdir()
    assert ownership.foreign_unit(unit, "") == str(unit)
