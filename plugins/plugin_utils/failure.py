# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why Ansible could not run a module on a host, and the way out.

A cause is named only when the text of the failure shows it. The texts were seen with ansible-core 2.19.14 and 2.21.5,
sudo 1.9.16 and opendoas 6.8.2; the one of xcode-select is from Apple.
"""

from __future__ import annotations

import re
from typing import Any

# What SSH adds to the output of every command that has a terminal.
CLOSED = re.compile(r"^Shared connection to .* closed\.$", re.MULTILINE)
# Text that shows the cause -> cause and way out.
WAYS = {
    r"must have a tty": (
        "sudo on this host requires a terminal (requiretty). Set `ansible_pipelining: false` for the host, or remove "
        "requiretty from its sudoers file"
    ),
    r"sudo: (command )?not found": (
        "This host has no sudo. Install it, or set ansible_become_method to another program "
        "(`community.general.doas`, `su`)"
    ),
    r"doas: (command )?not found": "This host has no doas. Install it, or remove ansible_become_method to use sudo",
    r"doas is not enabled|doas: Operation not permitted": (
        "doas does not allow this account to become root. Add `permit nopass NAME as root` to /etc/doas.conf"
    ),
    r"not in the sudoers file|is not allowed to (execute|run)|may not run sudo": (
        "This account may not use sudo. Allow it with `visudo`, or set ansible_user to an account that may use sudo"
    ),
    r"Incorrect \w+ password|doas: Authentication failed": (
        "The given password is not the password of this account. For hosts with different passwords, set "
        "ansible_become_password for each host, in a vault"
    ),
    r"Missing \w+ password|a password is required|doas: Authentication required": (
        "Add --ask-become-pass, or allow the account to become root without a password"
    ),
    r"xcode-select": (
        "On a Mac /usr/bin/python3 works only with the developer tools: run `xcode-select --install` there, or set "
        "ansible_python_interpreter to another Python"
    ),
    r"module interpreter .* was not found|python[\d.]*: (command )?not found": (
        "Install Python 3.9 or newer on this host, or set ansible_python_interpreter to the one that it has"
    ),
    # The last pattern: Python before 3.9 does not know `list[str]`.
    r"requires (a minimum of )?Python|(?m:^)SyntaxError:|'type' object is not subscriptable": (
        "The Python of this host is too old; 3.9 or newer is needed. Set ansible_python_interpreter to a newer one"
    ),
}


def explain(result: dict[str, Any]) -> str:
    """Say why a module did not run.

    Parameters:
        result: result of the failed task; `ansible_failed_result` in a rescue.

    Returns:
        The last line of the host's output, and the way out where that text shows the cause. With a terminal (no
        pipelining) errors are in the standard output. Without any output it is Ansible's own message.
    """
    said = "\n".join(CLOSED.sub("", str(result.get(name) or "")) for name in ("module_stderr", "module_stdout")).strip()
    message = re.sub("^Task failed: ((Action|Module) failed: )?", "", str(result.get("msg") or "").strip())
    # A traceback of Ansible's wrapper contains the whole module; its last line is the error.
    last = (said or message or "no reason was given").splitlines()[-1].strip().rstrip(".")
    way = next((way for sign, way in WAYS.items() if re.search(sign, f"{said}\n{message}")), None)
    if way is None and not said and "module_stderr" in result:
        way = "The host printed nothing. Add -vvv to see what Ansible tried"
    return f"{last}. {way}." if way else f"{last}."
