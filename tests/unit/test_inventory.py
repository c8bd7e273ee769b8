"""Inventory from SmolCluster's own files, read by the programs that a user calls."""

from __future__ import annotations

import configparser
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.smolcluster.logging.plugins.plugin_utils import smolcluster_config, yaml_entries

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"mini1": "10.10.0.1", "mini2": "10.10.0.2", "mini3": "10.10.0.3"}
OPTIONS = {"plugin": "smolcluster.logging.smolcluster", "config": "cluster_config_edp.yaml"}
NAMES = {"host_ip": ADDRESSES, "server": "mini1", "num_workers": 2, "workers": ["mini2", "mini3"], "port": 65432}
RANKED = [{"hostname": "mini2", "rank": 1}, {"hostname": "mini3", "rank": 2}]
ALL_TO_ALL = [{"hostname": name, "rank": rank, "ip": ip} for rank, (name, ip) in enumerate(ADDRESSES.items())]
# A few lines that break rules one by one.
TEXT = """\
host_ip:
  mini1: 10.10.0.1
  mini2: 10.10.0.2
  mini3: 10.10.0.3
num_workers: 2
server: mini1
workers:
  - hostname: mini2
    rank: 1
  - hostname: mini3
    rank: 2
"""


@dataclasses.dataclass
class Inventory:
    """What Ansible has read.

    Parameters:
        groups: names of hosts by group.
        hosts: the variables that the plugin sets, by host.
        code: exit code if the run was ended, else 0.
        messages: warnings and errors in one line.
    """

    groups: dict[str, list[str]]
    hosts: dict[str, dict[str, Any]]
    code: int
    messages: str


class Folder:
    """A user's folder with files of SmolCluster.

    Parameters:
        path: an empty folder.
        capsys: what this process prints.
    """

    def __init__(self, path: Path, capsys: pytest.CaptureFixture) -> None:
        self.path, self._capsys = path, capsys

    def write(self, name: str, content: Any) -> Path:
        """Write a file.

        Parameters:
            name: its name.
            content: text or bytes as they are, anything else as YAML.
        """
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return file

    def inventory(self, *sources: Path) -> Inventory:
        """Let Ansible read sources, in this process, which is faster than `ansible-inventory`."""
        manager = InventoryManager(DataLoader(), parse=False)
        code = 0
        try:
            for source in sources:
                manager.parse_source(str(source))
        except SystemExit as ended:
            code = ended.code
        messages = " ".join(self._capsys.readouterr().err.split())
        assert "Traceback" not in messages
        ours = ("ansible_host", "ansible_user", "smolcluster_component", "smolcluster_rank")
        hosts = {
            name: {key: host.vars[key] for key in ours if key in host.vars} for name, host in manager.hosts.items()
        }
        return Inventory(manager.get_groups_dict(), hosts, code, messages)


@pytest.fixture
def folder(tmp_path, capsys, monkeypatch) -> Folder:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "ansible.cfg")
    enabled = [name.strip() for name in settings["inventory"]["enable_plugins"].split(",")]
    monkeypatch.setattr(constants, "INVENTORY_ENABLED", enabled)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Folder(tmp_path, capsys)


def run(program: str, *words: str | Path, folder: Path = ROOT) -> tuple[int, str]:
    """Run one of Ansible's programs, with the settings of a folder only.

    Parameters:
        program: its name.
        words: its arguments.
        folder: where to run it.

    Returns:
        Exit code, and everything that it printed.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    command = [Path(sys.executable).with_name(program), *words]
    env |= {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def problems(file: Path, **options: Any) -> str:
    """Problems of a config, one a line, without the folder."""
    with pytest.raises(yaml_entries.FileError) as refused:
        smolcluster_config.read(file, **options)
    return str(refused.value).replace(f"{file.parent}/", "")


@pytest.mark.parametrize(
    "config",
    [
        NAMES,
        NAMES | {"workers": RANKED},
        NAMES | {"workers": {"regular": RANKED, "tablets": []}},
        NAMES | {"workers": {"regular": RANKED}},
        NAMES | {"workers": {"regular": ["mini2"], "tablets": None}, "num_workers": 1},
        {"syncPS": {"host_ip": ADDRESSES}, "ringTopology": {"workers": {"regular": ALL_TO_ALL}}, "num_workers": 3},
    ],
    ids=["names", "ranked", "tablets", "regular", "regular names", "topology"],
)
def test_every_shape_of_a_config_is_read(folder, config):
    found = smolcluster_config.read(folder.write("cluster_config_edp.yaml", config)).nodes
    assert {node.name: node.address for node in found}.items() <= ADDRESSES.items()
    ranks = {node.name: node.rank for node in found if node.component == "worker"}
    first = 0 if "ringTopology" in config else 1
    assert list(ranks.values()) == list(range(first, first + config["num_workers"]))
    assert [node.name for node in found if node.component == "server"] == ([] if first == 0 else ["mini1"])


def test_a_config_is_an_inventory_as_it_is(folder):
    read = folder.inventory(folder.write("cluster_config_edp.yaml", NAMES))
    assert read.hosts == {
        "mini1": {"ansible_host": "10.10.0.1", "smolcluster_component": "server"},
        "mini2": {"ansible_host": "10.10.0.2", "smolcluster_component": "worker", "smolcluster_rank": 1},
        "mini3": {"ansible_host": "10.10.0.3", "smolcluster_component": "worker", "smolcluster_rank": 2},
    }
    assert read.groups["minis"] == ["mini1", "mini2", "mini3"]
    assert read.messages == ""


def test_a_second_source_names_the_controller_and_changes_variables(folder):
    config = folder.write("renamed.yml", NAMES)
    more = {"controller": {"hosts": {"head": None}}, "minis": {"hosts": {"mini2": {"ansible_host": "mini2.local"}}}}
    read = folder.inventory(config, folder.write("more.yml", more))
    assert read.groups["controller"] == ["head"]
    assert read.hosts["mini2"]["ansible_host"] == "mini2.local"


def test_a_missing_or_wrong_controller_is_explained(folder):
    config = folder.write("cluster_config_edp.yaml", NAMES)
    second = folder.write("controller.yml", "controller: {hosts: {head: {ansible_host: 10.10.0.4}}}\n")
    checks = ROOT / "playbooks/check_inventory.yml"
    code, output = run("ansible-playbook", "-i", config, checks)
    assert code == 2
    assert "SmolCluster's config does not name the machine that runs Loki and Grafana. Set the option" in output
    assert run("ansible-playbook", "-i", config, "-i", second, checks)[0] == 0
    second.write_text("controller: {hosts: {head: {ansible_host: 10.10.0.2}}}\n")
    code, output = run("ansible-playbook", "-i", config, "-i", second, checks)
    assert code == 2
    assert "mini2 and the controller head have the same address, 10.10.0.2." in output


def test_a_config_that_another_plugin_took_is_explained(folder):
    config = folder.write("cluster_config_edp.yaml", NAMES)
    folder.write("ansible.cfg", f"[defaults]\ncollections_path = {ROOT}/collections\n")
    code, output = run("ansible-playbook", "-i", config, ROOT / "playbooks/check_inventory.yml", folder=folder.path)
    assert code == 2
    assert "Ansible has taken a config of SmolCluster for an inventory with groups such as" in output


def test_a_file_of_options_names_config_and_controller(folder):
    folder.write("configs/cluster_config_edp.yaml", NAMES)
    options = OPTIONS | {"config": "configs/cluster_config_edp.yaml", "controller": "10.10.0.4", "user": "smol"}
    read = folder.inventory(folder.write("cluster.yml", options))
    assert read.groups["controller"] == ["10.10.0.4"]
    assert {values["ansible_user"] for values in read.hosts.values()} == {"smol"}


def test_the_example_is_read_by_the_programs():
    code, output = run("ansible-inventory", "-i", "inventory/smolcluster.yml", "--list")
    assert code == 0
    listed = json.loads(output)
    assert listed["minis"]["hosts"] == ["mini1", "mini2", "mini3"]
    assert listed["controller"]["hosts"] == ["10.10.0.4"]
    variables = listed["_meta"]["hostvars"]["mini2"]
    assert (variables["ansible_host"], variables["ansible_user"]) == ("10.10.0.2", "smol")


def test_a_folder_with_a_config_is_read(folder):
    read = folder.inventory(ROOT / "inventory/smolcluster")
    assert (read.groups["minis"], read.messages) == (["mini1", "mini2", "mini3"], "")


@pytest.mark.parametrize("where", ["nodes.yaml", "home/.config/smolcluster/nodes.yaml", "other.yaml"])
def test_addresses_and_accounts_come_from_nodes_yaml(folder, where):
    servers = dict.fromkeys(ADDRESSES, "10.10.0.1")
    folder.write("cluster_config_edp.yaml", NAMES | {"host_ip": servers})
    entries = [{"alias": name, "ip": ADDRESSES[name], "user": "smol"} for name in ("mini2", "mini3")]
    folder.write(where, {"nodes": [*entries, {"alias": "mini9", "ip": "x"}]})
    options = OPTIONS | ({"nodes": where} if where == "other.yaml" else {})
    found = folder.inventory(folder.write("cluster.yml", options)).hosts
    assert {name: values["ansible_host"] for name, values in found.items()} == ADDRESSES
    assert [values.get("ansible_user") for values in found.values()] == [None, "smol", "smol"]


def test_an_address_or_account_of_the_worker_itself_is_used(folder):
    workers = [entry | {"ip": f"192.0.2.{entry['rank']}", "user": "smol"} for entry in RANKED]
    found = smolcluster_config.read(folder.write("c.yaml", NAMES | {"workers": workers})).nodes
    assert [(node.address, node.user) for node in found[1:]] == [("192.0.2.1", "smol"), ("192.0.2.2", "smol")]


def test_nodes_are_reached_by_name_on_request(folder):
    folder.write("cluster_config_edp.yaml", NAMES | {"host_ip": dict.fromkeys(ADDRESSES, "10.10.0.1")})
    read = folder.inventory(folder.write("cluster.yml", OPTIONS | {"ssh_aliases": True, "controller": "mini1"}))
    assert [values.get("ansible_host") for values in read.hosts.values()] == [None, None, None]
    assert read.groups["controller"] == ["mini1"]


def test_machines_without_an_agent_are_left_out_with_a_warning(folder):
    tablets = [{"hostname": "slate", "rank": 3}]
    workers = {"regular": [*RANKED, {"hostname": "win", "rank": 4}], "tablets": tablets}
    config = NAMES | {"server": "my-ipad2", "workers": workers, "num_workers": 4}
    read = folder.inventory(folder.write("cluster_config_mp.yaml", config))
    assert list(read.hosts) == ["mini2", "mini3"]
    for name in ("slate", "win", "my-ipad2"):
        assert f"{name} is left out: no agent runs on phones, tablets and Windows" in read.messages


@pytest.mark.parametrize("name", ["winston", "mini-w", "darwin1", "pi5", "macbook", "jetson2"])
def test_other_machines_are_not_left_out(name):
    assert not smolcluster_config.kind_is_unsupported(name)


@pytest.mark.parametrize(
    ("wanted", "controller"),
    [
        ("mini1", ("mini1", None)),
        ("macbook", ("macbook", "10.10.0.9")),
        ("head", ("head", None)),
        ("fd00::4", ("fd00::4", None)),
    ],
)
def test_a_controller_of_the_config_has_its_address(folder, wanted, controller):
    file = folder.write("c.yaml", NAMES | {"host_ip": ADDRESSES | {"macbook": "10.10.0.9", "pi4": "10.10.0.1"}})
    assert smolcluster_config.read(file, controller=wanted).controller == controller


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("pi4", "c.yaml:5: the address of the controller pi4 is '10.10.0.1'; that is the address of mini1."),
        ("pi5", "c.yaml:6: the address of the controller pi5 is 'x.x.x.x'; that is neither"),
        ("10.10.0.2", "c.yaml:3: mini2 has the address of the controller, 10.10.0.2. Correct it;"),
        ("http://10.10.0.4:3100", "The option controller is 'http://10.10.0.4:3100'."),
    ],
)
def test_a_controller_that_cannot_be_one_is_refused(folder, wanted, message):
    file = folder.write("c.yaml", NAMES | {"host_ip": ADDRESSES | {"pi4": "10.10.0.1", "pi5": "x.x.x.x"}})
    assert problems(file, controller=wanted).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  mini3: 10.10.0.3\n", "", "c.yaml:9: mini3 has no address. Add it to host_ip (c.yaml:2)"),
        ("10.10.0.3", "", "c.yaml:10: mini3 has no address."),
        (
            "10.10.0.3",
            "10.10.0.2",
            "c.yaml:3: several nodes have the address 10.10.0.2: mini2 (c.yaml:3), mini3 (c.yaml:4)",
        ),
        ("10.10.0.3", "x.x.x.x", "c.yaml:4: the address of mini3 is 'x.x.x.x'; that is neither"),
        ("10.10.0.3", "<LAN IP>", "c.yaml:4: the address of mini3 is '<LAN IP>'; that is neither"),
        ("10.10.0.3", "YOUR_IP", "c.yaml:4: the address of mini3 is 'YOUR_IP'; that is neither"),
        ("10.10.0.3", "224.0.0.1", "c.yaml:4: the address of mini3 is '224.0.0.1'; that is not the address of a host"),
        ("10.10.0.3", "'::'", "c.yaml:4: the address of mini3 is '::'; that is not the address of a host"),
        ("10.10.0.3", "10.10.0.300", "c.yaml:4: the address of mini3 is '10.10.0.300'; that is neither"),
        ("10.10.0.3", "10.3", "c.yaml:4: the address of mini3 is '10.3'; it must be an address in quotes"),
        ("10.10.0.3", "-oProxyCommand=x", "c.yaml:4: the address of mini3 is '-oProxyCommand=x'"),
        ("10.10.0.3", '"{{ 1 }}"', "c.yaml:4: the address of mini3 is '{{ 1 }}'"),
        ("10.10.0.3", r'"\e[31m\n"', "c.yaml:4: the address of mini3 is '[31m'; that is neither"),
        ("10.10.0.3", "y" * 99, f"c.yaml:4: the address of mini3 is '{'y' * 59}…'; that is neither"),
        ("rank: 2", "rank: 1", "c.yaml:10: mini3 has rank 1, and so has mini2 on line 8."),
        ("rank: 2", "rank: two", "c.yaml:11: the rank of mini3 is 'two'. It must be a whole number from 0."),
        ("rank: 2", "rank: -1", "c.yaml:11: the rank of mini3 is '-1'."),
        ("    rank: 2\n", "", "c.yaml:10: mini3 has no rank."),
        ("hostname: mini3", "name: mini3", "c.yaml:10: this worker has no hostname."),
        ("hostname: mini3", "hostname: mini2", "c.yaml:10: mini2 is also on line 8."),
        ("hostname: mini3", "hostname: mini1", "c.yaml:10: mini1 is also on line 6."),
        (
            "hostname: mini3",
            "hostname: mini 3",
            "c.yaml:10: the name of a machine is 'mini 3'; that is no name of a host.",
        ),
        ("hostname: mini3", "hostname: 3", "c.yaml:10: the name of a machine is '3'"),
        ("hostname: mini3", "hostname: all", "c.yaml:10: the name of a machine is 'all'; that is a group"),
        ("  - hostname: mini3\n    rank: 2\n", "  - mini3\n", "c.yaml:10: a worker is 'mini3', others are mappings."),
        ("num_workers: 2", "num_workers: 3", "c.yaml:5: num_workers is 3, but the list of workers has 2."),
        ("num_workers: 2", "num_workers: two", "c.yaml:5: num_workers is 'two'. It must be a whole number."),
        ("server: mini1\n", "", "c.yaml:1: the key server is missing, and no worker has rank 0."),
        ("server: mini1", "server:", "c.yaml:6: the name of a machine is empty"),
        ("server: mini1", "server: [mini1]", "c.yaml:6: the name of a machine is a list"),
        ("server: mini1", "num_workers: 2", "c.yaml:6: the key num_workers is already on line 5."),
        ("\nworkers:\n", "\nworkers:\n  minis:\n", "c.yaml:8: the list of workers is a mapping."),
        (TEXT[TEXT.index("workers:\n") :], "", "c.yaml:1: no workers are listed"),
        ("  mini2: 10", "\tmini2: 10", "c.yaml:3: the line is indented with a tab, which YAML forbids. Use spaces."),
        ("server: mini1", "server: [mini1", "c.yaml:7: this is not YAML"),
        ("server: mini1", "server: \0", "c.yaml:6: a control character (number 0)."),
        (TEXT, "- mini1\n", "c.yaml:1: the file has a list at its top."),
        (TEXT, "mini1\n", "c.yaml:1: the file has 'mini1' at its top."),
        (TEXT, "# nothing\n", "c.yaml: the file is empty."),
        (TEXT, "a: " + "[" * 5000, "c.yaml: lists or mappings are nested too deeply."),
        (TEXT, "&a [*a]", "c.yaml:1: the file has a list at its top."),
        (TEXT, TEXT + "---\n" + TEXT, "c.yaml:12: this is not YAML"),
        (TEXT, TEXT + "ringTopology: {workers: {regular: []}}\n", "c.yaml: workers are listed on lines 8 and 12."),
    ],
)
def test_a_bad_config_is_refused_with_the_line(folder, old, new, message):
    assert old in TEXT
    file = folder.write("c.yaml", TEXT.replace(old, new))
    assert problems(file).startswith(message)


def test_every_problem_is_named_at_once(folder):
    text = (
        TEXT.replace("rank: 2", "rank: 1").replace("10.10.0.2", "x.x.x.x").replace("num_workers: 2", "num_workers: 4")
    )
    found = problems(folder.write("c.yaml", text)).splitlines()
    assert [line.split(":")[1] for line in found] == ["5", "10", "3"]


def test_text_of_another_encoding_is_refused(folder):
    file = folder.write("c.yaml", TEXT.replace("server: mini1", "# Zürich").encode("latin-1"))
    assert problems(file).startswith("c.yaml:6: this is not UTF-8.")
    assert problems(folder.write("d.yaml", TEXT.encode("utf-16"))).startswith("d.yaml:1: this is not UTF-8.")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder):
    file = folder.write("c.yaml", b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert len(smolcluster_config.read(file).nodes) == 3


def test_merge_keys_are_read(folder):
    text = TEXT.replace("  - hostname: mini2\n", "  - &first\n    hostname: mini2\n").replace(
        "    rank: 2", "    rank: 2\n    <<: *first"
    )
    assert [node.rank for node in smolcluster_config.read(folder.write("c.yaml", text)).nodes] == [None, 1, 2]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"nodes": [{"alias": "mini2"}, {"alias": "mini2"}]}, "n.yaml:3: mini2 is already on line 2."),
        ({"nodes": [{"ip": "10.10.0.2"}]}, "n.yaml:2: this entry of nodes has no alias."),
        ({"nodes": {"mini2": "10.10.0.2"}}, "n.yaml:1: there is no list nodes."),
        ({"nodes": [{"alias": "mini2", "user": "youruser"}]}, "n.yaml:3: the user of mini2 is 'youruser'."),
        ({"nodes": [{"alias": "mini2", "user": "-l root"}]}, "n.yaml:3: the user of mini2 is '-l root'."),
        (
            {"nodes": [{"alias": "mini2", "ip": "10.10.0.3"}]},
            "n.yaml:3: several nodes have the address 10.10.0.3: mini2 (n.yaml:3), mini3 (c.yaml:4)",
        ),
        ("\talias", "n.yaml:1: the line is indented with a tab"),
    ],
)
def test_a_bad_nodes_yaml_is_refused_with_the_line(folder, nodes, message):
    config = folder.write("c.yaml", TEXT)
    assert problems(config, nodes=folder.write("n.yaml", nodes)).startswith(message)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cluster_config_edp.yaml", TEXT.replace("num_workers: 2", "num_workers: 3")),
        ("edp.yaml", TEXT.replace("  mini2: 10", "\tmini2: 10")),
        ("cluster_config_edp.yaml", ""),
        ("cluster_config_edp.yaml", "- mini1\n"),
        ("cluster_config_edp.yml", "\ufeffmini1: Z\u00fcrich".encode("utf-16")),
        ("cluster_config_edp.yaml", "learning_rate: 3\n"),
        ("nodes.yaml", {"nodes": [{"alias": "mini2", "ip": "10.10.0.2"}]}),
        ("cluster.yml", OPTIONS | {"config": "missing.yaml"}),
        ("cluster.yml", OPTIONS | {"config": "home"}),
        ("cluster.yml", OPTIONS | {"nodes": "missing.yaml"}),
        ("cluster.yml", {"plugin": OPTIONS["plugin"]}),
        ("cluster.yml", OPTIONS | {"controler": "10.10.0.4"}),
        ("cluster.yml", OPTIONS | {"config": "~nobody9/c.yaml"}),
        ("broken.yml", f"plugin: {OPTIONS['plugin']}\n\tconfig: c.yaml\n"),
    ],
)
def test_a_bad_file_ends_the_run(folder, name, content):
    (folder.path / "home").mkdir()
    if name == "cluster.yml" and content.keys() - OPTIONS.keys():
        folder.write("cluster_config_edp.yaml", NAMES)
    read = folder.inventory(folder.write(name, content))
    assert read.code == 4
    assert read.messages.startswith("[ERROR]: ")
    assert f"{folder.path}/" in read.messages
    assert read.hosts == {}


def test_a_bad_file_ends_the_run_of_a_program(folder):
    bad = folder.write("cluster_config_edp.yaml", TEXT.replace("num_workers: 2", "num_workers: 3"))
    other = folder.write("hosts.yml", {"minis": {"hosts": {"localhost": {"ansible_connection": "local"}}}})
    code, output = run("ansible", "-i", other, "-i", bad, "all", "-m", "ansible.builtin.ping")
    assert code == 4
    message = "num_workers is 3, but the list of workers has 2. Correct the number or the list."
    assert output.split("\n") == ["[ERROR]: The inventory cannot be used.", f"{bad}:5: {message}", "", ""]


def test_an_unknown_option_offers_the_nearest_name(folder):
    read = folder.inventory(folder.write("cluster.yml", OPTIONS | {"controler": "10.10.0.4"}))
    assert "there is no option controler. Did you mean controller?" in read.messages
    assert "cluster.yml:3:1" in read.messages


def test_two_configs_that_contradict_each_other_are_refused(folder):
    first = folder.write("cluster_config_edp.yaml", NAMES)
    second = folder.write("cluster_config_mp.yaml", NAMES | {"workers": ["mini3", "mini2"]})
    assert folder.inventory(first, first).code == 0
    read = folder.inventory(first, second)
    assert read.code == 4
    assert f"{second}: mini3 has another rank or is another component in {first}." in read.messages


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hosts.yml", {"minis": {"hosts": {"mini1": None}}}),
        ("cluster_config_hosts.yaml", {"all": {"children": {"minis": {"hosts": {"mini1": None}}}}}),
        ("workers.yml", {"workers": {"hosts": {"mini1": {"num_workers": 3, "host_ip": "10.10.0.1", "alias": "a"}}}}),
        ("host_ip.yml", {"host_ip": {"hosts": {"mini1": None}}}),
        ("hosts.ini", "[minis]\nmini1\n"),
    ],
)
def test_other_inventories_are_left_to_other_plugins(folder, name, content):
    read = folder.inventory(folder.write(name, content))
    assert list(read.hosts) == ["mini1"]
    assert read.hosts["mini1"].keys() <= {"ansible_host"}
    assert read.messages == ""
