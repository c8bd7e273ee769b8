"""Accounts without the rights or the Python that Ansible needs: the run says what is missing, and only that."""

from __future__ import annotations

import pytest

from tests.lab.harness import MINIS, Lab

MINI = MINIS[0]
ONE = ("--tags", "promtail", "--limit", MINI.name)
SUDOERS = "/etc/sudoers.d/zz-test"
# What is done to the node, how it is undone, and what the message has to say.
CASES = {
    "requiretty": (f"echo 'Defaults requiretty' > {SUDOERS}", f"rm -f {SUDOERS}", "Set `ansible_pipelining: false`"),
    "password": (
        f"echo 'smol ALL=(ALL) PASSWD: ALL' > {SUDOERS}",
        f"rm -f {SUDOERS}",
        "Add --ask-become-pass",
    ),
    "no sudo": ("mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo", "This host has no sudo"),
}


@pytest.mark.parametrize(("break_it", "undo", "expected"), CASES.values(), ids=CASES)
def test_missing_rights_are_named(lab: Lab, break_it, undo, expected):
    lab.on(MINI, break_it)
    try:
        play = lab.play("site.yml", *ONE)
    finally:
        lab.on(MINI, undo)
    said = " ".join(play.output.split())
    assert play.code != 0
    assert f"{MINI.name}: Ansible cannot examine this node" in said
    assert expected in said
    assert "Python 3.9" not in said


def test_a_sudo_that_wants_a_terminal_works_without_pipelining(lab: Lab):
    lab.on(MINI, f"echo 'Defaults requiretty' > {SUDOERS}")
    try:
        play = lab.play("site.yml", *ONE, ansible_pipelining=False)
    finally:
        lab.on(MINI, f"rm -f {SUDOERS}")
    assert play.code == 0, play.output
    assert play.changed() == 0


def test_a_missing_python_is_named(lab: Lab):
    play = lab.play("site.yml", *ONE, ansible_python_interpreter="/usr/bin/python3.99")
    said = " ".join(play.output.split())
    assert play.code != 0
    assert "Install Python 3.9 or newer on this host, or set ansible_python_interpreter to the one that it has" in said
