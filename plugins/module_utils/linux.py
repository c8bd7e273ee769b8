# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Linux host says of itself: C library, processes, listening ports. Reads /proc; starts no programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked

PROC = Path("/proc")
SET_CLOCK = "timedatectl set-ntp true"


def hint(words: str) -> str:  # noqa: ARG001
    """What to add to the words of an error; Linux says what it means."""
    return ""


def interpreter() -> str:
    """Python for a service: the system's own by the name that outlives its upgrades, else the one of this run."""
    return next(path for path in ("/usr/bin/python3", sys.executable) if os.access(path, os.X_OK))


def glibc() -> str | None:
    """Version of the GNU C library, for example `2.36`; none on other C libraries (musl)."""
    try:
        name, _, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
    except (ValueError, AttributeError):
        return None
    return version if name == "glibc" else None


def command_line(pid: int) -> list[str]:
    """Arguments of a process; empty when it is gone or a thread of the kernel."""
    try:
        return [word for word in (PROC / str(pid) / "cmdline").read_text("utf-8", "replace").split("\0") if word]
    except OSError:
        return []


def environment(pid: int) -> dict[str, str]:
    """Environment that a process was started with; empty when it is gone."""
    try:
        words = (PROC / str(pid) / "environ").read_text("utf-8", "replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def executable(pid: int) -> str | None:
    """Path of the program that a process runs; none when it is gone. A replaced file ends in ` (deleted)`."""
    try:
        return os.readlink(PROC / str(pid) / "exe")
    except OSError:
        return None


def age(pid: int) -> float | None:
    """Seconds since a process was started; none when it is gone.

    Source: proc_pid_stat(5), field 22 (clock ticks after boot), counted behind the name, which may hold spaces.
    """
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        uptime = float((PROC / "uptime").read_text().split()[0])
    except OSError:
        return None
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def command_lines() -> dict[int, list[str]]:
    """Arguments of every process of this host, by its number; those of its containers are left out (PID namespace)."""
    own = os.readlink(PROC / "self/ns/pid")
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == own:
                    found[int(entry.name)] = command_line(int(entry.name))
            except OSError:  # it has ended meanwhile
                continue
    return found


def control_group(pid: int) -> str:
    """Control group of a process in systemd's own hierarchy; empty when it is gone, or there is none.

    Source: proc_pid_cgroup(5) (`number:controllers:path`; the unified hierarchy has neither number nor controllers).
    """
    try:
        lines = (PROC / str(pid) / "cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    return groups.get("name=systemd", groups.get("", ""))


def unit_of(pid: int) -> str | None:
    """System service in whose control group a process is; it need not be the service's main process.

    It may be in any slice. Below it can be groups that the service has made itself, and for a user's own service the
    system's is `user@UID.service`. In a container the groups are below that of its process 1.

    Source: systemd, docs/CONTROL_GROUP_INTERFACE.md.
    """
    root = control_group(1).removesuffix("/init.scope").rstrip("/")
    group = control_group(pid)
    parts = group[len(root) :].split("/") if group.startswith(f"{root}/") else []
    # A scope holds what others have started, a user's session for example.
    unit = next((part for part in parts if part.endswith((".service", ".scope"))), "")
    return unit if unit.endswith(".service") else None


def listener(port: int) -> dict[str, object] | None:
    """Who listens on a TCP port.

    Parameters:
        port: TCP port, any local address, IPv4 and IPv6.

    Returns:
        None when nobody does; else `pid` and `command`, which has no secrets (both None when the owner cannot be seen).

    Source of the table's form: Linux, Documentation/networking/proc_net_tcp.rst (state 0A = LISTEN).
    """
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = (PROC / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for link in (entry / "fd").iterdir():
                if os.readlink(link) in inodes:
                    pid = int(entry.name)
                    return {"pid": pid, "command": masked(command_line(pid))}
        except OSError:
            continue
    return {"pid": None, "command": None}
