# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of a Mac: processes, listening ports, power settings, Homebrew. Only programs of macOS are started.

They are called by absolute paths, because a non-interactive SSH session has a short PATH.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils import python
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked

SET_CLOCK = "sudo systemsetup -setusingnetworktime on"
# Possible causes of two errors that macOS does not explain.
HINTS = {
    "operation not permitted": "macOS may require Full Disk Access for this (docs/macos.md)",
    "no route to host": "macOS may block the agent from the local network (docs/macos.md, the agent's account)",
}
# Python of Apple's developer tools; /usr/bin/python3 starts it, or asks to install the tools.
DEVELOPER_PYTHON = "/Library/Developer/CommandLineTools/usr/bin/python3"
# Homebrew's folder on Apple silicon and on Intel (https://docs.brew.sh/Installation).
PREFIXES = (Path("/opt/homebrew"), Path("/usr/local"))


def output(*argv: str) -> str:
    """Standard output of a program, whatever its exit code; empty when it is missing or takes longer than 20 s."""
    try:
        # AnsibleModule.run_command has no timeout.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, capture_output=True, text=True, errors="replace", timeout=20, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def glibc() -> None:
    """Version of the GNU C library: None on a Mac."""


def command_lines() -> dict[int, list[str]]:
    """Arguments of every process, by process ID; an argument with a space counts as two."""
    rows = (line.split() for line in output("/bin/ps", "-axww", "-o", "pid=", "-o", "command=").splitlines())
    return {int(row[0]): row[1:] for row in rows if len(row) > 1}


def mounts() -> list[tuple[str, str, str]]:
    """Mounted file systems: folder, type and what is mounted there. Source: mount(8) without arguments."""
    found = {}
    for line in output("/sbin/mount").splitlines():
        if match := re.fullmatch(r"(.*?) on (/.*) \(([\w.]+)(?:,.*)?\)", line):
            found[match[2]] = (match[2], match[3], match[1])
    return list(found.values())


def boot() -> str:
    """Empty: no two Macs run on one kernel."""
    return ""


def command_line(pid: int) -> list[str]:
    """Arguments of a process; empty when it has ended."""
    return output("/bin/ps", "-ww", "-o", "command=", "-p", str(pid)).split()


def descendants(pid: int) -> list[int]:
    """IDs of a process and all its descendants, the process first; empty when it has ended."""
    rows = [line.split() for line in output("/bin/ps", "-ax", "-o", "pid=", "-o", "ppid=").splitlines()]
    parents = {int(row[0]): int(row[1]) for row in rows if len(row) == 2}
    found = [pid] if pid in parents else []
    for parent in found:  # the list grows during the loop
        found += [child for child, of in parents.items() if of == parent]
    return found


def executable(pid: int) -> str | None:
    """Path of the program that a process runs; None when it has ended.

    Source: lsof(8), descriptor `txt` and the field `n` of its output for programs; the program comes first.
    """
    lines = output("/usr/sbin/lsof", "-a", "-p", str(pid), "-d", "txt", "-Fn").splitlines()
    return next((line[1:] for line in lines if line.startswith("n")), None)


def age(pid: int) -> float | None:
    """Seconds since a process was started; None when it has ended. Source: ps(1), `etime`: [[days-]hours:]min:sec."""
    found = re.fullmatch(
        r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", output("/bin/ps", "-o", "etime=", "-p", str(pid)).strip()
    )
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def listener(port: int) -> dict[str, object] | None:
    """The process that listens on a TCP port.

    Parameters:
        port: TCP port, on any local address, IPv4 and IPv6.

    Returns:
        None when the port is free; else `pid` and `command` without secrets (both None if the process is not visible).
    """
    lines = output("/usr/sbin/lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp").splitlines()
    pid = next((int(line[1:]) for line in lines if line.startswith("p")), None)
    if pid is not None:
        return {"pid": pid, "command": masked(command_line(pid))}
    if not 0 < port < 1 << 16:
        return None
    # lsof shows an account only its own processes.
    with socket.socket() as probe:
        probe.settimeout(1)
        return None if probe.connect_ex(("127.0.0.1", port)) else {"pid": None, "command": None}


def sleep_minutes() -> int | None:
    """Minutes after which this Mac goes to sleep; 0 is never, None is unknown. Source: pmset(1), `-g`."""
    found = re.search(r"^\s*sleep\s+(\d+)", output("/usr/bin/pmset", "-g"), re.MULTILINE)
    return int(found[1]) if found else None


def quarantined(path: Path) -> bool:
    """Whether Gatekeeper would block a program, because it is marked as downloaded by a browser."""
    return path.exists() and "com.apple.quarantine" in output("/usr/bin/xattr", str(path)).split()


def hint(message: str) -> str:
    """Possible cause to append to an error message; empty when there is none."""
    return "".join(f". {text}" for phrase, text in HINTS.items() if phrase in message.lower())


def interpreter() -> str:
    """Python for a service; see `python.for_service`. The system's own is the one of the developer tools."""
    return python.for_service(DEVELOPER_PYTHON)


def architecture() -> str:
    """Machine type of this Mac, as `uname -m` prints it."""
    return os.uname().machine


def homebrew() -> dict[str, object] | None:
    """Homebrew and its Promtail.

    Returns:
        None without Homebrew; else `brew` (path of its program), `owner` (the account that owns it, the only one that
        may run it), `program` (path of Promtail) and `installed` (whether Promtail is installed).
    """
    for prefix in PREFIXES:
        brew, program = prefix / "bin/brew", prefix / "opt/promtail/bin/promtail"
        if brew.exists():
            return {
                "brew": str(brew),
                "owner": brew.owner(),
                "program": str(program),
                "installed": os.access(program, os.X_OK),
            }
    return None


def owner_of(brew: str) -> tuple[int, int]:
    """User and group ID of the account that owns Homebrew.

    Parameters:
        brew: path of its program, a link on Macs with an Intel processor. The owner of the link chooses its target, so
            the owner of the link counts, unless that is root.
    """
    link, file = os.lstat(brew), os.stat(brew)
    status = link if link.st_uid else file
    return status.st_uid, status.st_gid


def facts() -> dict[str, object]:
    """Facts for a deployment that only a Mac has; see the module `agent_host_info`."""
    return {
        "version": output("/usr/bin/sw_vers", "-productVersion").strip(),
        "sleep": sleep_minutes(),
        "homebrew": homebrew(),
    }
