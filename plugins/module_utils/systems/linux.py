# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of a Linux host: C library, processes, listening ports. Reads /proc; starts no programs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils import python
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked

PROC = Path("/proc")
SET_CLOCK = "timedatectl set-ntp true"
PYTHON = "/usr/bin/python3"
# Programs that every system has, and that are built for the platform of the system's programs.
USUAL = ("/bin/sh", "/proc/1/exe")
# Machine types as `uname -m` prints them, by machine number and word size in an ELF header.
# Source: Linux, include/uapi/linux/elf-em.h; 64 bits on x86-64 with a 32-bit header are the ABI x32.
MACHINES = {(3, 32): "i686", (62, 64): "x86_64", (62, 32): "x32", (40, 32): "armv7l", (183, 64): "aarch64"}


def hint(message: str) -> str:  # noqa: ARG001
    """Possible cause to append to an error message; always empty on Linux."""
    return ""


def text_of(path: Path) -> str:
    """Text of a system file; invalid UTF-8, which the name of a process may contain, is replaced.

    Raises:
        OSError: the file cannot be read.
    """
    return path.read_text("utf-8", "replace")


def interpreter() -> str:
    """Python for a service; see `python.for_service`."""
    return python.for_service(PYTHON)


def elf_machine(header: bytes) -> str | None:
    """Machine type that a program is built for, as `uname -m` prints it; None for an unknown one or no ELF file.

    Parameters:
        header: the first 20 bytes of the program, or more.

    Source: elf(5), e_ident and e_machine.
    """
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    order = "big" if header[5] == 2 else "little"
    bits = 64 if header[4] == 2 else 32
    known = MACHINES.get((int.from_bytes(header[18:20], order), bits))
    return None if order == "big" else known


def architecture() -> str:
    """Machine type that the programs of this system are built for, as `uname -m` prints it.

    The kernel may have another type: a 32-bit system often runs on a 64-bit kernel (Raspberry Pi OS), without a loader
    and libraries for 64-bit programs. The word size of Python proves nothing either: this Python may come from
    elsewhere or run in an emulator. So programs of the system itself are read.
    """
    kernel = os.uname().machine
    for program in USUAL:
        try:
            with open(program, "rb") as file:
                found = elf_machine(file.read(20))
        except OSError:
            continue
        if found == "armv7l" and re.match(r"armv[4-7]", kernel):
            # All of these have the same ELF header; a 32-bit kernel knows the processor.
            return kernel
        if found:
            return found
    return kernel


def glibc() -> str | None:
    """Version of the GNU C library, for example `2.36`; None with another C library (musl)."""
    try:
        name, _space, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
    except (ValueError, AttributeError):
        return None
    return version if name == "glibc" else None


def mounts() -> list[tuple[str, str, str]]:
    """Mounted file systems: folder, type and what is mounted there. Source: proc_pid_mountinfo(5).

    A later one hides an earlier one of the same folder, so only the last one of a folder counts.
    """
    found = {}
    for line in text_of(PROC / "self/mountinfo").splitlines():
        before, _separator, after = line.partition(" - ")
        folder, (kind, origin) = before.split(" ")[4], after.split(" ")[:2]
        folder, origin = (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), one) for one in (folder, origin))
        found[folder] = (folder, kind, origin)
    return list(found.values())


def boot() -> str:
    """Identity of the running kernel, which containers on it have in common."""
    return text_of(PROC / "sys/kernel/random/boot_id").strip()


def command_line(pid: int) -> list[str]:
    """Arguments of a process; empty when it has ended or is a kernel thread."""
    try:
        return [argument for argument in text_of(PROC / str(pid) / "cmdline").split("\0") if argument]
    except OSError:
        return []


def environment(pid: int) -> dict[str, str]:
    """Environment that a process was started with; empty when it has ended."""
    try:
        variables = text_of(PROC / str(pid) / "environ").split("\0")
    except OSError:
        return {}
    return dict(variable.split("=", 1) for variable in variables if "=" in variable)


def executable(pid: int) -> str | None:
    """Path of the program that a process runs; None when it has ended. A replaced file ends in ` (deleted)`."""
    try:
        return os.readlink(PROC / str(pid) / "exe")
    except OSError:
        return None


def age(pid: int) -> float | None:
    """Seconds since the start of a process; None when it has ended.

    Source: proc_pid_stat(5), field 22 (clock ticks after boot), counted after the name, which may contain spaces.
    """
    try:
        fields = text_of(PROC / str(pid) / "stat").rpartition(")")[2].split()
        uptime = float(text_of(PROC / "uptime").split()[0])
    except OSError:
        return None
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """IDs of the direct child processes of a process, the oldest first."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            # proc_pid_stat(5): the parent, and the start in clock ticks after boot
            if int(fields[1]) == pid:
                found.append((int(fields[19]), int(entry.name)))
    return [child for _start, child in sorted(found)]


def command_lines() -> dict[int, list[str]]:
    """Arguments of every process of this host, by process ID; without those in containers (PID namespace)."""
    own = os.readlink(PROC / "self/ns/pid")
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == own:
                    found[int(entry.name)] = command_line(int(entry.name))
            except OSError:  # it has just ended
                continue
    return found


def control_group(pid: int) -> str:
    """Control group of a process in systemd's own hierarchy; empty when the process has ended or has no such group.

    Source: proc_pid_cgroup(5) (`number:controllers:path`; the unified hierarchy has neither number nor controllers).
    """
    try:
        lines = text_of(PROC / str(pid) / "cgroup").splitlines()
    except OSError:
        return ""
    groups = {controllers: path for _number, controllers, path in (line.split(":", 2) for line in lines)}
    return groups.get("name=systemd", groups.get("", ""))


def unit_of(pid: int) -> str | None:
    """System service whose control group contains a process, which need not be the service's main process.

    The service may be in any slice, and may have created groups below its own. For a service of a user it is
    `user@UID.service`. In a container the groups are below the group of its process 1.

    Source: systemd, docs/CONTROL_GROUP_INTERFACE.md.
    """
    root = control_group(1).removesuffix("/init.scope").rstrip("/")
    group = control_group(pid)
    parts = group[len(root) :].split("/") if group.startswith(f"{root}/") else []
    # A scope contains processes that others have started, for example a user's session.
    unit = next((part for part in parts if part.endswith((".service", ".scope"))), "")
    return unit if unit.endswith(".service") else None


def listener(port: int) -> dict[str, object] | None:
    """The process that listens on a TCP port.

    Parameters:
        port: TCP port, on any local address, IPv4 and IPv6.

    Returns:
        None when the port is free; else `pid` and `command` without secrets (both None if the process is not visible).

    Source of the table's form: Linux, Documentation/networking/proc_net_tcp.rst (state 0A = LISTEN).
    """
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = text_of(PROC / table).splitlines()[1:]
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
