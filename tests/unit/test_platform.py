"""What a node says of itself: platform, interpreter, accounts, names, and what is made of that on the control node."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import (
    accounts,
    deployment,
    host_facts,
    python,
    resolver,
)
from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux
from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks

from tests.lab.harness import Play
from tests.unit.test_sources import NODE, ROOT, problems

of_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
LOKI = {"host": "head", "addresses": [], "servers": ["192.0.2.53"], "certain": True, "known_to_system": False}
LOKI |= {"refusal": ""}


def elf(machine: int, bits: int, order: str = "little") -> bytes:
    """A stand-in for a program: the first 20 bytes of an ELF file, which say for what it is built."""
    kind = bytes([bits // 32, 1 if order == "little" else 2, 1]) + bytes(9)
    return b"\x7fELF" + kind + (2).to_bytes(2, order) + machine.to_bytes(2, order)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A stand-in for a system: its shell by the header, its kernel by the name of `uname -m`."""

    def made(header: bytes, kernel: str) -> str:
        shell = tmp_path / "sh"
        shell.write_bytes(header)
        monkeypatch.setattr(linux, "USUAL", (str(tmp_path / "none"), str(shell)))
        identity = os.uname_result(("Linux", "mini", "6.12", "#1", kernel))
        monkeypatch.setattr(linux.os, "uname", lambda: identity)
        return linux.architecture()

    return made


@pytest.mark.parametrize(
    ("header", "kernel", "found"),
    [
        (elf(62, 64), "x86_64", "x86_64"),
        (elf(183, 64), "aarch64", "aarch64"),
        (elf(40, 32), "aarch64", "armv7l"),  # Raspberry Pi OS of 32 bits on its default kernel
        (elf(40, 32), "armv8l", "armv7l"),
        (elf(40, 32), "armv7l", "armv7l"),
        (elf(40, 32), "armv6l", "armv6l"),  # a processor for which there is no program
        (elf(3, 32), "x86_64", "i686"),
        (elf(62, 32), "x86_64", "x32"),
        (elf(40, 32, "big"), "armv7b", "armv7b"),
        (elf(243, 64), "riscv64", "riscv64"),
        (b"#!/bin/busybox sh\n# a script", "aarch64", "aarch64"),
        (b"\x7fELF", "x86_64", "x86_64"),
        (b"", "x86_64", "x86_64"),
    ],
)
def test_platform_is_what_the_systems_programs_are_built_for(system, header, kernel, found):
    assert system(header, kernel) == found


def test_platform_of_this_machine_is_known():
    assert linux.architecture() in ("x86_64", "aarch64", "armv7l")


def test_named_platform_must_be_one_of_the_hosts_system():
    assert problems({"architecture": "riscv64"}, platform="linux-arm") == []
    (problem,) = problems(platform="darwin-arm64")
    assert problem.startswith("promtail_platform is darwin-arm64, but this host runs Linux")


# --- interpreter


@pytest.fixture
def pythons(monkeypatch):
    """Stand-ins for two interpreters: that of the run and the system's own, by what is known of them."""

    def chosen(here: str, system: str, *, version=(3, 11), roots=(), venv=False, same=False) -> str:
        monkeypatch.setattr(python.sys, "executable", here)
        monkeypatch.setattr(python.sys, "prefix", "/venv" if venv else sys.base_prefix)
        monkeypatch.setattr(python, "of_root", lambda path: path in roots)
        monkeypatch.setattr(python, "version", lambda path: version if path == system else ())
        monkeypatch.setattr(python.os.path, "exists", lambda _: True)
        monkeypatch.setattr(python.os.path, "samefile", lambda *_: same)
        return python.for_service(system)

    return chosen


OWN, OTHER, HOME = "/usr/bin/python3", "/usr/bin/python3.11", "/home/smol/venv/bin/python"


def test_interpreter_of_the_run_starts_the_service(pythons):
    assert pythons(OTHER, OWN, version=(3, 8), roots=(OWN, OTHER)) == OTHER
    assert pythons(OTHER, OWN, version=(3, 12), roots=(OWN, OTHER)) == OTHER


def test_name_that_outlives_upgrades_is_taken_for_the_same_interpreter(pythons):
    assert pythons(OTHER, OWN, roots=(OWN, OTHER), same=True) == OWN
    # A virtual environment of root's, whose python is a link to the system's.
    assert pythons("/opt/venv/bin/python", OWN, roots=(OWN, "/opt/venv/bin/python"), venv=True, same=True) == (
        "/opt/venv/bin/python"
    )


def test_interpreter_of_an_account_gives_way_to_a_new_enough_one_of_root(pythons):
    assert pythons(HOME, OWN, version=(3, 9), roots=(OWN,), venv=True, same=True) == OWN
    assert pythons(HOME, OWN, version=(3, 8), roots=(OWN,), venv=True) == HOME
    assert pythons(HOME, OWN, version=(3, 12), roots=(), venv=True) == HOME
    assert pythons(HOME, OWN, version=(), roots=(OWN,)) == HOME


def test_version_of_a_python():
    assert python.version(sys.executable) == sys.version_info[:2]
    assert python.version("/bin/false") == python.version("/nowhere") == python.version("/bin/echo") == ()


def test_interpreter_that_an_account_can_change_is_worth_a_note():
    settings = {"sources": [], "adopt": False, "user": "promtail", "reads_all": True}
    node = NODE | {"python": HOME, "python_of_root": False}
    (note,) = agent_checks.notes(settings, node)
    assert note.startswith(f"the agent is started by {HOME}, which accounts other than root can change")
    assert "may read every file of this host" in note
    assert agent_checks.notes(settings | {"reads_all": False}, node) == []
    macos = {"sleep": 0, "version": "15.6"}
    mac = node | {"system": "Darwin", "macos": macos}
    (note,) = agent_checks.notes(settings | {"user": "root", "full_disk_access": False}, mac)
    assert "acts as root on this host" in note
    assert "xcode-select --install" in note


# --- accounts


@of_root
def test_program_is_roots_when_nobody_else_can_change_it_or_a_folder_above(tmp_path):
    program, link = tmp_path / "lib/python", tmp_path / "python"
    program.parent.mkdir()
    program.touch(0o755)
    link.symlink_to("lib/python")
    assert accounts.of_root(str(program))
    assert accounts.of_root(str(link))
    for path, owner, mode in ((program, 1, 0o755), (program, 0, 0o757), (program.parent, 1, 0o755)):
        before = path.stat()
        os.chown(path, owner, 0)
        path.chmod(mode)
        assert not accounts.of_root(str(link)), (path, owner, oct(mode))
        os.chown(path, 0, 0)
        path.chmod(stat.S_IMODE(before.st_mode))
    os.chown(program, 0, 50)
    program.chmod(0o775)
    assert not accounts.of_root(str(link))  # of a group that others may be in
    os.chown(program, 0, 0)
    assert accounts.of_root(str(link))  # of root's own group
    program.parent.chmod(0o1777)
    assert accounts.of_root(str(link))
    os.lchown(link, 1, 1)
    assert not accounts.of_root(str(link))
    assert not accounts.of_root(str(tmp_path / "none"))
    (tmp_path / "loop").symlink_to("loop")
    assert accounts.of_root(str(tmp_path / "loop"))


@of_root
def test_folder_that_an_account_cannot_read():
    with tempfile.TemporaryDirectory() as name:
        top, home = Path(name), Path(name) / "home"
        (home / "logs").mkdir(parents=True)
        top.chmod(0o755)
        home.chmod(0o750)
        assert accounts.unreadable(f"{home}/logs/worker-*.log", "nobody") == f"{home}/logs"
        assert accounts.unreadable(f"{home}/logs/*.log", "nobody") == f"{home}/logs"
        assert accounts.unreadable(f"{home}/logs/a.log", "no-such-account") == f"{home}/logs"
        assert accounts.unreadable(f"{home}/to-come/*/a.log", "nobody") == str(home)
        assert accounts.unreadable(f"{home}/logs/*.log", "root") is None
        home.chmod(0o711)
        assert accounts.unreadable(f"{home}/logs/worker-*.log", "no-such-account") is None
        assert accounts.unreadable(f"{home}/logs/*.log", "nobody") is None
        assert accounts.unreadable(f"{home}/to-come/a.log", "nobody") is None
        (home / "logs").chmod(0o711)
        assert accounts.unreadable(f"{home}/logs/*.log", "nobody") == f"{home}/logs"
        assert os.geteuid() == 0


@of_root
def test_program_that_an_account_may_not_run(tmp_path):
    program = tmp_path / "python"
    program.touch(0o755)
    tmp_path.chmod(0o700)
    assert not accounts.may_run(str(program), "nobody")
    assert accounts.may_run("/bin/sh", "nobody")


@of_root
def test_file_is_opened_with_the_rights_of_an_account(tmp_path):
    secret = tmp_path / "secret"
    secret.touch(0o600)
    with pytest.raises(PermissionError), accounts.acting_as(65534, 65534):
        secret.open()
    assert (os.geteuid(), os.getegid()) == (0, 0)
    secret.open().close()


OTHER_ACCOUNT = {"user": "smol", "reads_all": False}


def test_another_account_on_linux_has_to_exist_and_to_read():
    assert problems(**OTHER_ACCOUNT) == []
    (problem,) = problems({"user": "absent", "uid": None}, **OTHER_ACCOUNT)
    assert problem.startswith("there is no user 'smol' on this host. Set promtail_user to an existing user")
    (problem,) = problems({"unreadable": ["/home/ray/logs"]}, **OTHER_ACCOUNT)
    assert problem.startswith("the account smol cannot read /home/ray/logs, a folder for log files. Set promtail_user")
    # An account that is still to be made is in no group.
    to_be_made = {"user": "absent", "uid": None, "system": "Darwin", "unreadable": ["/Users/ray/logs"]}
    settings = {"user": "_promtail", "account": "_promtail", "reads_all": False, "install_method": "archive"}
    (problem,) = agent_checks.account_problems(settings, NODE | to_be_made)
    assert problem.startswith("the account _promtail cannot read /Users/ray/logs")
    (problem,) = problems({"python_usable": False, "python": "/root/py/bin/python3"}, **OTHER_ACCOUNT)
    assert problem.startswith("the account smol may not run /root/py/bin/python3")
    (problem,) = problems({"uid": 0}, user="root", reads_all=False)
    assert "on Linux the agent never runs as root" in problem


# --- names


@pytest.fixture
def dns(tmp_path, monkeypatch):
    """A stand-in for a DNS server: what it answers by full name, and the names that it was asked for."""
    zone: dict[str, list[str] | int | None] = {}
    asked: list[str] = []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                message, where = server.recvfrom(512)
            except OSError:
                return
            at, labels = 12, []
            while message[at]:
                labels.append(message[at + 1 : at + 1 + message[at]].decode())
                at += message[at] + 1
            name, kind = ".".join(labels), int.from_bytes(message[at + 1 : at + 3], "big")
            asked.append(name)
            known = zone.get(name, 3)
            if known is None:  # it does not answer
                continue
            code, found = (known, []) if isinstance(known, int) else (0, known)
            family = resolver.TYPES[kind]
            packed = [socket.inet_pton(family, address) for address in found if (":" in address) == (kind == 28)]
            # An alias first, as for a name that is one.
            alias = struct.pack("!HHHIH", 0xC00C, 5, 1, 60, 2) + b"\xc0\x0c"
            answer = struct.pack("!6H", int.from_bytes(message[:2], "big"), 0x8180 | code, 1, len(packed) + 1, 0, 0)
            answer += message[12 : at + 5] + alias
            for address in packed:
                answer += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(address)) + address
            server.sendto(answer, where)

    threading.Thread(target=serve, daemon=True).start()
    hosts, resolv = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_bytes(b"127.0.0.1 localhost\n192.0.2.7 Box box.lan # b\xfcro\n::1 localhost\nnonsense head\n")
    resolv.write_bytes(b"# caf\xe9\nnameserver 127.0.0.1\nsearch lan example.org\noptions ndots:1\n")
    for name, value in {"HOSTS": hosts, "RESOLV": resolv, "PORT": server.getsockname()[1], "PATIENCE": 0.2}.items():
        monkeypatch.setattr(resolver, name, value)
    yield zone, asked
    server.close()


def test_name_in_the_hosts_file_is_found_though_the_file_is_no_utf_8(dns):
    _, asked = dns
    assert resolver.look_up("box").addresses == resolver.look_up("BOX.lan.").addresses == ["192.0.2.7"]
    assert resolver.look_up("localhost").addresses == ["127.0.0.1", "::1"]
    assert asked == []


def test_name_is_asked_with_the_domains_of_the_system(dns):
    zone, asked = dns
    zone["head.example.org"] = ["192.0.2.9", "2001:db8::9"]
    answer = resolver.look_up("head")
    assert answer.addresses == ["192.0.2.9", "2001:db8::9"]
    assert answer.servers == ["127.0.0.1"]
    assert list(dict.fromkeys(asked)) == ["head.lan", "head.example.org"]
    zone["controller.local"] = ["192.0.2.8"]  # a company's own domain
    assert resolver.look_up("controller.local").addresses == ["192.0.2.8"]


def test_unknown_name_is_told_apart_from_a_silent_server(dns):
    zone, asked = dns
    answer = resolver.look_up("head")
    assert (answer.addresses, answer.certain) == ([], True)
    assert list(dict.fromkeys(asked)) == ["head.lan", "head.example.org", "head"]
    for silence in (None, 2):  # no answer, SERVFAIL
        zone["head"] = silence
        answer = resolver.look_up("head")
        assert (answer.addresses, answer.certain) == ([], False)


@pytest.mark.parametrize("name", ["b\xfcro", "a..b", "a" * 64, "x." * 200])
def test_name_that_dns_cannot_have_is_not_found(dns, name):  # noqa: ARG001
    assert resolver.look_up(name).addresses == []


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"])
def test_address_needs_no_look_up(dns, name):
    _, asked = dns
    assert resolver.look_up(name).addresses == [name]
    assert asked == []


def test_settings_of_the_resolver(dns, tmp_path):  # noqa: ARG001
    (tmp_path / "resolv.conf").write_text("domain a.b ; no\nnameserver ::1\nnameserver x\noptions rotate ndots:3\n")
    assert resolver.settings() == (["::1"], ["a.b"], 3)
    (tmp_path / "resolv.conf").unlink()
    assert resolver.settings()[0] == ["127.0.0.1", "::1"]
    assert resolver.spellings("a.b", ["c"], 1) == ["a.b.", "a.b.c."]
    assert resolver.spellings("a.", ["c"], 1) == ["a."]


def test_connection_is_tried_to_every_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert resolver.refusal(["127.0.0.1"], port) == ""
        assert resolver.refusal(["127.0.0.2", "127.0.0.1"], port) == ""
    assert resolver.refusal(["127.0.0.1"], port) == "127.0.0.1: Connection refused"
    assert resolver.refusal([], port) == ""


def test_name_that_only_ssh_knows_is_refused():
    (problem,) = problems({"loki": LOKI}, loki_url="http://head:3100")
    assert problem.startswith("this host cannot resolve head, the name of Loki's machine")
    assert "the DNS servers (192.0.2.53) do not know it. Nodes do not know names from the SSH configuration" in problem
    assert "smolcluster_address of the controller" in problem
    (problem,) = problems({"loki": LOKI | {"certain": False}})
    assert "do not know it or do not answer" in problem
    assert problems({"loki": LOKI | {"addresses": ["192.0.2.1"]}}) == []


def test_name_that_only_the_systems_resolver_knows_is_refused():
    mdns = LOKI | {"host": "head.local", "known_to_system": True}
    (problem,) = problems({"loki": mdns})
    assert problem.startswith("Promtail cannot resolve head.local")
    assert "such as mDNS" in problem
    # Silent servers are no proof; then it is only worth a note.
    assert problems({"loki": mdns | {"certain": False}}) == []
    settings = {"sources": [], "adopt": False, "user": "promtail", "reads_all": True, "check_mode": False}
    settings |= {"install_method": "archive", "loki_url": "http://head.local:3100"}
    (note,) = agent_checks.notes(settings, NODE | {"loki": mdns | {"certain": False}})
    assert note.startswith("the DNS servers of this host (192.0.2.53) do not answer")
    # Homebrew builds Promtail with the system's resolver.
    assert agent_checks.name_problems({"install_method": "homebrew"}, {"loki": mdns}) == []


def test_loki_that_is_down_is_worth_a_note_after_a_deployment(monkeypatch):
    node = NODE | {"loki": LOKI | {"addresses": ["192.0.2.1"], "refusal": "192.0.2.1: Connection refused"}}
    assert problems(node) == []
    monkeypatch.setattr(host_facts, "loki_of", lambda _: node["loki"])
    switched = SimpleNamespace(
        agent=promtail, params={"config": {"clients": [{"url": "http://192.0.2.1:3100/loki/api/v1/push"}]}}
    )
    (note,) = deployment.Deployment.loki_notes(switched)
    assert note.startswith(
        "this host cannot connect to Loki at http://192.0.2.1:3100 now (192.0.2.1: Connection refused)"
    )
    monkeypatch.setattr(host_facts, "loki_of", lambda _: node["loki"] | {"refusal": ""})
    assert deployment.Deployment.loki_notes(switched) == []


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"ansible_ssh_host": "192.0.2.77"}, "192.0.2.77"),
        ({"ansible_ssh_host": "192.0.2.77", "ansible_host": "192.0.2.78"}, "192.0.2.77"),
        ({"ansible_ssh_host": "192.0.2.77", "smolcluster_address": "2001:db8::1"}, "[2001:db8::1]"),
        ({"ansible_host": "192.0.2.78"}, "192.0.2.78"),
        ({}, "head"),
    ],
)
def test_address_of_the_controller_is_the_one_that_ansible_uses(tmp_path, variables, address):
    groups = {"controller": {"hosts": {"head": variables}}, "minis": {"hosts": {"mini": {}}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": groups}}))
    task = {"ansible.builtin.debug": {"var": "promtail_controller"}}
    play = {"hosts": "minis", "connection": "local", "gather_facts": False, "tasks": [task]}
    play["vars_files"] = [str(ROOT / "playbooks/vars/agents.yml")]
    (tmp_path / "show.yml").write_text(json.dumps([play]))
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    shown = Play.of([program, "-i", str(tmp_path / "hosts.json"), str(tmp_path / "show.yml")], tmp_path)
    assert f"promtail_controller: {address}" in shown.output.replace('"', "").replace("'", ""), shown.output


# --- files of the system


def test_files_of_the_system_need_not_be_utf_8(tmp_path, monkeypatch):
    """A stand-in for /proc: a process may call itself anything."""
    own = tmp_path / "7"
    own.mkdir()
    (own / "stat").write_bytes(b"7 (caf\xe9 ) x) S " + b" ".join(b"%d" % number for number in range(2, 40)))
    (own / "cgroup").write_bytes(b"0::/system.slice/caf\xe9.service\n1:x:/system.slice/promtail.service\n")
    (own / "cmdline").write_bytes(b"caf\xe9\0")
    (tmp_path / "uptime").write_text("1000.0 1\n")
    monkeypatch.setattr(linux, "PROC", tmp_path)
    assert linux.age(7) == pytest.approx(1000 - 20 / os.sysconf("SC_CLK_TCK"))
    assert linux.unit_of(7) == "caf\ufffd.service"
    assert linux.command_line(7) == ["caf\ufffd"]
