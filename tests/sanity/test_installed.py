"""The built collection, installed and called by its full names, on the oldest and the newest core that is supported."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.sanity import pythons

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "smolcluster.logging"
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
INTERNAL = {f"{COLLECTION}.agent"}  # without a spec
# Folder of each kind of plugins that has documentation.
KINDS = {"module": "modules", "filter": "filter", "inventory": "inventory"}
# Oldest and newest core, and the minor numbers of the Pythons that get them (tools/venv.sh).
CORES = {"oldest": {11}, "newest": {12, 13, 14}}


class Installed:
    """The collection in a folder of its own, away from the checkout.

    Parameters:
        programs: folder of a core's programs.
        tarball: the built collection.
        folder: an empty folder.
    """

    def __init__(self, programs: Path, tarball: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        self._env |= {"ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
        (folder / "ansible.cfg").write_text("[defaults]\ncollections_path = collections\n")
        # Its dependency comes with the package `ansible`.
        self.run("ansible-galaxy", "collection", "install", tarball, "--no-deps", "-p", "collections")

    def run(self, program: str, *words: str | Path, code: int = 0) -> str:
        """Run a program of this core; returns what it printed, which must hold no warning of this collection's making.

        Parameters:
            program: its name.
            words: its arguments.
            code: exit code that it has to have.
        """
        done = subprocess.run(
            [self._programs / program, *words],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        # `ansible-doc --type role` of core 2.21 warns of a collection of its own.
        warnings = [line for line in done.stderr.splitlines() if "WARNING" in line and "_protomatter" not in line]
        assert warnings == []
        return done.stdout + (done.stderr if code else "")

    def inventory(self, **groups: list[str]) -> Path:
        """Write an inventory of these groups."""
        file = self._folder / "hosts.yml"
        children = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items()}
        file.write_text(yaml.safe_dump({"all": {"children": children}}))
        return file


@pytest.fixture(scope="module", params=CORES)
def installed(request, tarball, tmp_path_factory) -> Installed:
    """The collection, installed for a core."""
    found = {minor: python for minor, python in pythons.usable().items() if minor in CORES[request.param]}
    if not found:
        pytest.skip(f"no Python 3.{min(CORES[request.param])} here")
    venv = subprocess.run(
        [ROOT / "tools/venv.sh", "--print"],
        env=os.environ | {"PYTHON": str(found[max(found)])},
        capture_output=True,
        text=True,
        check=True,
    )
    return Installed(Path(venv.stdout.strip()) / "bin", tarball, tmp_path_factory.mktemp("installed"))


def test_it_requires_the_core_that_is_tested_as_the_oldest():
    pinned = re.search(r"^ansible-core==(\d+\.\d+)\.", (ROOT / "requirements/py311.txt").read_text(), re.MULTILINE)[1]
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert runtime["requires_ansible"] == f">={pinned}.0"
    minimums = {
        yaml.safe_load((ROOT / f"roles/{role}/meta/main.yml").read_text())["galaxy_info"]["min_ansible_version"]
        for role in ROLES
    }
    assert minimums == {pinned}


def test_every_plugin_and_role_is_documented(installed: Installed):
    names = {kind: {path.stem for path in (ROOT / "plugins" / folder).glob("*.py")} for kind, folder in KINDS.items()}
    for kind, expected in {**names, "role": set(ROLES)}.items():
        listed = json.loads(installed.run("ansible-doc", "--json", "--list", "--type", kind, COLLECTION))
        assert {name.removeprefix(f"{COLLECTION}.") for name in listed} == expected
        documented = json.loads(installed.run("ansible-doc", "--json", "--type", kind, *listed))
        assert documented.keys() == listed.keys() - INTERNAL


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_is_found_by_its_full_name(installed: Installed, playbook):
    hosts = installed.inventory(controller=["head"], minis=["node1"])
    assert installed.run("ansible-playbook", "--inventory", hosts, "--syntax-check", f"{COLLECTION}.{playbook}")


def test_checks_of_the_inventory_run(installed: Installed):
    command = ("ansible-playbook", "--inventory")
    checks = f"{COLLECTION}.check_inventory"
    assert "failed=0" in installed.run(*command, installed.inventory(controller=["head"], minis=["node1"]), checks)
    missing = installed.run(*command, installed.inventory(controller=["head"]), checks, code=2)
    assert "The group minis is missing or empty" in missing
    itself = installed.run(*command, installed.inventory(controller=["localhost"], minis=["node1"]), checks, code=2)
    assert "which means the host itself on node1" in " ".join(itself.split())


def test_its_filters_and_modules_run(installed: Installed):
    hosts = installed.inventory(controller=["localhost"], minis=["localhost"])
    message = "{{ {'msg': 'Missing sudo password'} | smolcluster.logging.failure_cause }}"
    local = ("localhost", "--inventory", hosts, "--connection", "local")
    said = installed.run("ansible", *local, "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": message}))
    assert "--ask-become-pass" in said
    options = {
        "project": "x",
        "project_dir": "/nonexistent",
        "marker": "x",
        "ports": [],
        "images": [],
        "units": ["/nonexistent/x.service"],
        "unit_marker": "x",
        "command": "/nonexistent/cluster-logs",
    }
    python = ("-e", "ansible_python_interpreter={{ ansible_playbook_python }}")
    said = installed.run("ansible", *local, *python, "-m", f"{COLLECTION}.log_store_info", "-a", json.dumps(options))
    assert os.uname().sysname in said


def test_a_config_of_smolcluster_is_an_inventory(installed: Installed, tmp_path):
    config = tmp_path / "cluster_config_edp.yaml"
    addresses = {"mini1": "10.10.0.1", "mini2": "10.10.0.2"}
    described = {"host_ip": addresses, "server": "mini1", "num_workers": 1, "workers": ["mini2"], "port": 65432}
    config.write_text(yaml.safe_dump(described))
    options = tmp_path / "cluster.yml"
    options.write_text(f"plugin: {COLLECTION}.smolcluster\nconfig: {config.name}\ncontroller: 10.10.0.4\n")
    listed = json.loads(installed.run("ansible-inventory", "--inventory", options, "--list"))
    assert listed["_meta"]["hostvars"]["mini2"].items() >= {"ansible_host": "10.10.0.2", "smolcluster_rank": 1}.items()
    checks = ("ansible-playbook", "--inventory", options, f"{COLLECTION}.check_inventory")
    assert "failed=0" in installed.run(*checks)
    config.write_text(yaml.safe_dump(described | {"num_workers": 2}))
    assert f"{config}:" in installed.run(*checks, code=4)
