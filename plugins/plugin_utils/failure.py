# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why Ansible could not run a module on a host, and the way out.

A cause is named only when the failure's own text shows it. The texts were seen with ansible-core 2.19.14 and 2.21.5,
sudo 1.9.16 and opendoas 6.8.2; that of xcode-select is Apple's.
"""

from __future__ import annotations

import re
from typing import Any

# What SSH adds to the errors of every command that has a terminal.
CLOSED = re.compile(r"^Shared connection to .* closed\.$", re.MULTILINE)
# Text that shows the cause -> cause and way out.
WAYS = {
    r"must have a tty": (
        "sudo wants a terminal on this host (requiretty). Set `ansible_pipelining: false` for the host, or remove "
        "requiretty from its sudoers"
    ),
    r"sudo: (command )?not found": (
        "This host has no sudo. Install it, or name another program by ansible_become_method "
        "(`community.general.doas`, `su`)"
    ),
    r"doas: (command )?not found": "This host has no doas. Install it, or remove ansible_become_method to use sudo",
    r"doas is not enabled|doas: Operation not permitted": (
        "doas does not let this account act as root. Add `permit nopass NAME as root` to /etc/doas.conf"
    ),
    r"not in the sudoers file|is not allowed to (execute|run)|may not run sudo": (
        "This account may not use sudo. Allow it to (`visudo`), or set ansible_user to an account that may"
    ),
    r"Incorrect \w+ password|doas: Authentication failed": (
        "The password that was given is not the one of this account. Hosts with different passwords need "
        "ansible_become_password, each in a vault"
    ),
    r"Missing \w+ password|a password is required|doas: Authentication required": (
        "Add --ask-become-pass, or allow the account to become root without a password"
    ),
    r"xcode-select": (
        "/usr/bin/python3 of a Mac works only with the developer tools: run `xcode-select --install` there, or name "
        "another Python by ansible_python_interpreter"
    ),
    r"module interpreter .* was not found|python[\d.]*: (command )?not found": (
        "Install Python 3.9 or newer on this host, or name the one that it has by ansible_python_interpreter"
    ),
    # The last one: a Python before 3.9 does not know `list[str]`.
    r"requires (a minimum of )?Python|(?m:^)SyntaxError:|'type' object is not subscriptable": (
        "The Python of this host is too old; 3.9 or newer is needed. Name one by ansible_python_interpreter"
    ),
}


def explain(result: dict[str, Any]) -> str:
    """Say why a module did not run.

    Parameters:
        result: result of the failed task, `ansible_failed_result` of a rescue.

    Returns:
        The last line of what the host said, with the way out where that text shows the cause. With a terminal
        (no pipelining) errors are in the output. Without any output it is Ansible's own message.
    """
    said = "\n".join(CLOSED.sub("", str(result.get(name) or "")) for name in ("module_stderr", "module_stdout")).strip()
    message = re.sub("^Task failed: ((Action|Module) failed: )?", "", str(result.get("msg") or "").strip())
    # A traceback of Ansible's wrapper holds the whole module; its last line is the error.
    last = (said or message or "no reason was given").splitlines()[-1].strip().rstrip(".")
    way = next((way for sign, way in WAYS.items() if re.search(sign, f"{said}\n{message}")), None)
    if way is None and not said and "module_stderr" in result:
        way = "The host printed nothing. Add -vvv to see what was tried"
    return f"{last}. {way}." if way else f"{last}."
