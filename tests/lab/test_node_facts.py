"""What a node says of itself decides how its agent runs: interpreter, account, platform, the name of Loki's machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import engine
from lab.config import USER
from tests.lab.harness import LOGS, MINIS, Lab, Play
from tests.lab.test_refusals import refused

MINI = MINIS[1]
ONE = ("--tags", "promtail", "--limit", MINI.name)
UNIT = "/etc/systemd/system/promtail.service"


class Node(Lab):
    """One mini of the lab."""

    def sh(self, script: str, data: str | None = None, check: bool = True) -> str:
        """Run a script as root on the node; returns what it printed."""
        return self.on(MINI, script, data, check)

    def one(self, *words: str, **variables) -> Play:
        """Deploy to the node; must succeed."""
        return self.deploy(*ONE, *words, **variables)

    def refused(self, *words: str, **variables) -> None:
        """A deployment is refused with these words, and the agent runs on."""
        before = self.agent_pid(MINI)
        refused(self.play("site.yml", *ONE, **variables), MINI.name, *words)
        assert self.agent_pid(MINI) == before != "0"

    def remove(self) -> None:
        """Uninstall the agent where there is one."""
        if not self.sh("ls -d /opt/promtail 2>/dev/null; true"):
            return
        play = self.play("playbooks/uninstall.yml", *ONE)
        assert play.code == 0, play.output

    def account(self) -> list[str]:
        """User and group of the agent's process."""
        return self.sh(f"stat -c '%U %G' /proc/{self.agent_pid(MINI)}").split()

    def lines(self, mark: str, first: int, last: int) -> None:
        """Training, under its own account, writes numbered lines that only this account may read."""
        text = "".join(f"2026-04-06 12:00:00,{n:03d} | INFO | rank:1 | {mark} {n}\n" for n in range(first, last))
        stamped = text.replace("2026-04-06 12:00:00", self.sh("date '+%Y-%m-%d %H:%M:%S'"))
        self.sh(f"mkdir -p -m 1777 {LOGS}; su {USER} -c 'umask 077; cat >> {LOGS}/worker-rank1-{mark}.log'", stamped)

    def arrived(self, mark: str, count: int) -> None:
        """So many different lines of a mark are in Loki, each once."""
        found = self.entries(f'{{node="{MINI.name}"}} |= "{mark} "', count)
        assert len(found) == len({line for _, line, _ in found}) == count


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:  # noqa: ARG001
    """A mini with the agent; afterwards it is as the other tests want it."""
    yield Node()
    Node().one()


def test_interpreter_of_the_inventory_starts_the_service_where_the_systems_own_is_too_old(node: Node):
    """A stand-in for /usr/bin/python3 of version 3.8: it fails at whatever it is asked."""
    assert "ExecStart=/usr/bin/python3 " in node.sh(f"cat {UNIT}")
    new = node.sh("readlink -f /usr/bin/python3")
    old = "#!/bin/sh\necho 'stand-in for Python 3.8' >&2\nexit 1\n"
    node.sh("mv /usr/bin/python3 /usr/bin/kept; cat > /usr/bin/python3; chmod 755 /usr/bin/python3", old)
    try:
        node.one(ansible_python_interpreter=new)
        assert f"ExecStart={new} " in node.sh(f"cat {UNIT}")
        node.sh("systemctl restart promtail")
        mark = f"python-{time.time_ns()}"
        node.lines(mark, 0, 20)
        node.arrived(mark, 20)
    finally:
        node.sh("mv /usr/bin/kept /usr/bin/python3")
    assert node.one().changed() == 1
    assert "ExecStart=/usr/bin/python3 " in node.sh(f"cat {UNIT}")


def test_interpreter_that_an_account_can_change_gives_way_to_the_systems_own(node: Node):
    own = f"/home/{USER}/python3"
    node.sh(f"cp $(readlink -f /usr/bin/python3) {own}; chown {USER} {own}")
    try:
        assert node.one(ansible_python_interpreter=own).changed() == 0
        # A stand-in for a system's Python that is too old.
        old = "#!/bin/sh\nexit 1\n"
        node.sh("mv /usr/bin/python3 /usr/bin/kept; cat > /usr/bin/python3; chmod 755 /usr/bin/python3", old)
        try:
            play = node.one("--check", ansible_python_interpreter=own)
        finally:
            node.sh("mv /usr/bin/kept /usr/bin/python3")
        assert f"is started by {own}, which accounts other than root can change" in " ".join(play.output.split())
    finally:
        node.sh(f"rm {own}")


def test_account_without_a_group_of_its_name(node: Node):
    """A stand-in for the account that a distribution's package or openSUSE makes."""
    node.remove()
    node.sh("useradd --system --no-user-group --gid daemon --no-create-home promtail")
    node.one()
    assert node.account() == ["promtail", "daemon"]
    assert node.one().changed() == 0
    node.remove()
    assert node.sh("id -gn promtail") == "daemon"  # it was not ours
    node.sh("userdel promtail")


def test_system_that_makes_no_group_for_an_account(node: Node):
    node.remove()
    node.sh("cp /etc/login.defs /root/kept; sed -i 's/^USERGROUPS_ENAB.*/USERGROUPS_ENAB no/' /etc/login.defs")
    try:
        node.one()
        assert node.account() == ["promtail", "users"]
        # Whoever else is in that group keeps its shared memory when the agent stops.
        node.sh(f"install -o {USER} -g users -m 600 /dev/null /dev/shm/train; systemctl stop promtail")
        assert node.sh("ls /dev/shm/train; rm -f /dev/shm/train") == "/dev/shm/train"
        assert node.one().changed() == 1
        node.remove()
        assert node.sh("id promtail 2>/dev/null; getent group promtail; true") == ""
    finally:
        node.sh("mv /root/kept /etc/login.defs")
    node.one()
    assert node.account() == ["promtail", "promtail"]


def test_agent_under_the_account_of_training_and_back(node: Node):
    mark = f"account-{time.time_ns()}"
    node.lines(mark, 0, 100)
    node.arrived(mark, 100)
    assert node.one(promtail_user=USER).changed() == 1
    assert node.account()[0] == USER
    rights = node.sh(f"grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/{node.agent_pid(MINI)}/status").split()[1::2]
    assert [int(right, 16) for right in rights] == [0] * 5
    assert set(node.sh("stat -c %U /var/lib/promtail /var/lib/promtail/*").split()) == {USER}
    node.lines(mark, 100, 200)
    node.arrived(mark, 200)
    assert node.one(promtail_user=USER).changed() == 0
    # Training's shared memory outlives a stop of the agent that runs under its account.
    node.sh(f"install -o {USER} -m 600 /dev/null /dev/shm/train; systemctl stop promtail")
    assert node.sh("ls /dev/shm/train; rm -f /dev/shm/train") == "/dev/shm/train"
    assert node.one().changed() == 1
    assert node.account() == ["promtail", "promtail"]
    assert set(node.sh("stat -c %U /var/lib/promtail /var/lib/promtail/*").split()) == {"promtail"}
    node.lines(mark, 200, 300)
    node.arrived(mark, 300)


def test_account_of_training_is_left_by_uninstall_and_the_roles_own_is_not(node: Node):
    node.one(promtail_user=USER)
    node.remove()
    assert node.sh("id promtail 2>/dev/null; ls -d /var/lib/promtail 2>/dev/null; true") == ""
    assert node.sh(f"id -un {USER}") == USER
    node.one()


PRIVATE = {"name": "t", "paths": ["/srv/private/*.log"], "format": "smolcluster"}
TRAPS = {
    "account-missing": (
        {"promtail_user": "nobody_here"},
        "there is no user 'nobody_here' on this host",
        "leave it empty",
    ),
    "root": ({"promtail_user": "root"}, "on Linux the agent never runs as root", "Leave promtail_user empty"),
    "account-that-cannot-read": (
        {"promtail_user": USER, "promtail_sources": [PRIVATE]},
        f"the account {USER} cannot read /srv/private",
        "the account that trains",
    ),
    "platform-of-another-system": (
        {"promtail_platform": "darwin-arm64"},
        "promtail_platform is darwin-arm64, but this host runs Linux",
        "Remove the variable",
    ),
    "mdns-name": (
        {"promtail_loki_url": "http://head.local:3100"},
        "cannot resolve head.local, the name of Loki's machine",
        "promtail_loki_url",
    ),
}


@pytest.fixture(scope="module")
def trapped(node: Node, tmp_path_factory) -> Play:
    """One run with all traps; the agent runs on."""
    node.sh("install -d -m 700 /srv/private")
    before = node.agent_pid(MINI)
    play = node.play_cases(tmp_path_factory.mktemp("traps"), MINI, {name: case[0] for name, case in TRAPS.items()})
    assert node.agent_pid(MINI) == before != "0"
    node.sh("rmdir /srv/private")
    return play


@pytest.mark.parametrize("case", TRAPS)
def test_trap_is_told(trapped: Play, case):
    trapped.refused(case, *TRAPS[case][1:])


def test_name_that_only_ssh_knows_is_told(node: Node):
    # A setting of the controller, which all nodes share.
    cause = "cannot resolve head, the name of Loki's machine"
    node.refused(cause, "Set smolcluster_address of the controller", smolcluster_address="head")


def test_loki_that_is_down_is_worth_a_note(node: Node):
    words = " ".join(node.one(promtail_loki_url="http://controller:3999").output.split())
    assert "cannot connect to Loki at http://controller:3999 now" in words
    assert "Connection refused" in words
    words = " ".join(node.one().output.split())
    assert "cannot connect to Loki" not in words


def test_files_of_the_system_need_not_be_utf_8(node: Node):
    node.sh("printf '192.0.2.9 other # b\\374ro\\n' >> /etc/hosts; printf '# caf\\351\\n' >> /etc/resolv.conf")
    try:
        assert node.one().changed() == 0
    finally:
        node.sh("grep -av 'ro$' /etc/hosts > /root/h; cat /root/h > /etc/hosts; rm /root/h")
        node.sh("grep -av '^# caf' /etc/resolv.conf > /root/r; cat /root/r > /etc/resolv.conf; rm /root/r")


def test_named_platform_is_installed_though_the_version_is_there_for_another(node: Node):
    platform = "linux-arm" if engine.platform() != "linux-arm" else "linux-arm64"
    before = node.agent_pid(MINI)
    play = node.play("site.yml", *ONE, promtail_platform=platform)
    assert play.code != 0
    assert f"promtail-{platform}.zip" in play.output
    assert node.agent_pid(MINI) == before
