"""Why a module did not run: what hosts really print, with and without pipelining."""

from __future__ import annotations

import pytest
from ansible_collections.smolcluster.logging.plugins.plugin_utils import failure

NO_JSON = "Module result deserialization failed: No start of json char found"
# What the host printed, and what the message has to say; seen with ansible-core 2.19 and 2.21.
PRINTED = {
    "requiretty": ("sudo: sorry, you must have a tty to run sudo", "ansible_pipelining: false"),
    "no sudo, dash": ("/bin/sh: 1: sudo: not found", "no sudo"),
    "no sudo, bash": ("/bin/sh: line 1: sudo: command not found", "no sudo"),
    "no doas": ("/bin/sh: 1: doas: not found", "no doas"),
    "no doas.conf": ("doas: doas is not enabled, /etc/doas.conf: No such file or directory", "/etc/doas.conf"),
    "not in doas.conf": ("doas: Operation not permitted", "/etc/doas.conf"),
    "doas wants a password": ("doas: Authentication required", "--ask-become-pass"),
    "wrong password for doas": ("\ndoas: Authentication failed", "not the password of this account"),
    "not in sudoers": ("\nsmol is not in the sudoers file.", "may not use sudo"),
    "other commands only": ("Sorry, user smol is not allowed to execute '/bin/sh' as root on x.", "may not use sudo"),
    "Mac without developer tools": ("xcode-select: note: No developer tools were found", "xcode-select --install"),
    "Python 3.6": ('  File "<stdin>", line 3\nSyntaxError: future feature annotations is not defined', "too old"),
    "Python 3.7": ("Traceback\n  def f(name: str, /):\n               ^\nSyntaxError: invalid syntax", "too old"),
}
# Ansible's own message, and what has to be said.
MESSAGES = {
    "no Python": ("The module interpreter '/usr/bin/python3' was not found.", "Install Python 3.9"),
    "Python 3.8": ("Ansible requires Python 3.9 or newer on the target. Current version: 3.8.18", "too old"),
    "Python 3.8, core 2.19": ("Task failed: Module failed: 'type' object is not subscriptable", "too old"),
    "no password": ("Task failed: Missing sudo password", "--ask-become-pass"),
    "wrong password": ("Task failed: Incorrect sudo password", "not the password of this account"),
}


@pytest.mark.parametrize(("printed", "expected"), PRINTED.values(), ids=PRINTED)
@pytest.mark.parametrize("terminal", [False, True])
def test_what_the_host_printed_names_the_cause(printed, expected, terminal):
    streams = ("Shared connection to 192.0.2.1 closed.\n", printed) if terminal else (printed, "")
    said = failure.explain({"msg": NO_JSON, "module_stderr": streams[0], "module_stdout": streams[1], "rc": 1})
    assert expected in said
    assert said.startswith(printed.strip().splitlines()[-1].strip().rstrip("."))
    assert "Shared connection" not in said
    assert ("Python" in said) == (expected in ("too old", "xcode-select --install"))


@pytest.mark.parametrize(("message", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_ansibles_own_message_names_the_cause(message, expected):
    assert expected in failure.explain({"msg": message})


@pytest.mark.parametrize(
    "result",
    [
        {"msg": "systemctl show: Failed to connect to bus: Permission denied"},
        {"msg": NO_JSON, "module_stderr": "sh: /tmp/x: Permission denied", "module_stdout": ""},
        {"msg": NO_JSON, "module_stderr": "Segmentation fault", "module_stdout": ""},
    ],
)
def test_no_cause_is_named_without_a_sign_of_it(result):
    assert failure.explain(result) == f"{result.get('module_stderr') or result['msg']}."


def test_a_host_that_prints_nothing_is_called_so():
    said = failure.explain({"msg": NO_JSON, "module_stderr": "", "module_stdout": ""})
    assert said == f"{NO_JSON}. The host printed nothing. Add -vvv to see what Ansible tried."
    assert failure.explain({}) == "no reason was given."


def test_the_way_through_ansible_is_left_out():
    assert failure.explain({"msg": "Task failed: Module failed: no such unit"}) == "no such unit."
