# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Linux host says of itself: C library, processes, listening ports. Reads /proc; starts no programs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils import python
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked

PROC = Path("/proc")
SET_CLOCK = "timedatectl set-ntp true"
PYTHON = "/usr/bin/python3"
# Programs of which every system has one, and which are built for what its programs are built for.
USUAL = ("/bin/sh", "/proc/1/exe")
# Machines by their numbers in an ELF header and the size of their words, in the words of `uname -m`.
# Source: Linux, include/uapi/linux/elf-em.h; 64 bits on x86-64 with a 32-bit header are the ABI x32.
MACHINES = {(3, 32): "i686", (62, 64): "x86_64", (62, 32): "x32", (40, 32): "armv7l", (183, 64): "aarch64"}


def hint(words: str) -> str:  # noqa: ARG001
    """What to add to the words of an error; Linux says what it means."""
    return ""


def text_of(path: Path) -> str:
    """Text of a file of the system; what is no UTF-8, as a process may call itself, is replaced.

    Raises:
        OSError: it cannot be read.
    """
    return path.read_text("utf-8", "replace")


def interpreter() -> str:
    """Python for a service; see `python.for_service`."""
    return python.for_service(PYTHON)


def elf_machine(header: bytes) -> str | None:
    """Machine that a program is built for, in the words of `uname -m`; none when it is not known, or no ELF file.

    Parameters:
        header: its first 20 bytes or more.

    Source: elf(5), e_ident and e_machine.
    """
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    order = "big" if header[5] == 2 else "little"
    bits = 64 if header[4] == 2 else 32
    known = MACHINES.get((int.from_bytes(header[18:20], order), bits))
    return None if order == "big" else known


def architecture() -> str:
    """Machine that the programs of this system are built for, in the words of `uname -m`.

    The kernel's own may differ: a system of 32 bits often runs on a kernel of 64 (Raspberry Pi OS), and has no loader
    and no libraries for programs of 64 bits. Python's own word size does not tell either: it may be an interpreter from
    elsewhere, or run under an emulator. So programs of the system itself are looked at.
    """
    kernel = os.uname().machine
    for program in USUAL:
        try:
            with open(program, "rb") as file:
                found = elf_machine(file.read(20))
        except OSError:
            continue
        if found == "armv7l" and re.match(r"armv[4-7]", kernel):
            # All of these have the same header; a kernel of 32 bits knows the processor.
            return kernel
        if found:
            return found
    return kernel


def glibc() -> str | None:
    """Version of the GNU C library, for example `2.36`; none on other C libraries (musl)."""
    try:
        name, _space, version = os.confstr("CS_GNU_LIBC_VERSION").partition(" ")
    except (ValueError, AttributeError):
        return None
    return version if name == "glibc" else None


def command_line(pid: int) -> list[str]:
    """Arguments of a process; empty when it is gone or a thread of the kernel."""
    try:
        return [word for word in text_of(PROC / str(pid) / "cmdline").split("\0") if word]
    except OSError:
        return []


def environment(pid: int) -> dict[str, str]:
    """Environment that a process was started with; empty when it is gone."""
    try:
        words = text_of(PROC / str(pid) / "environ").split("\0")
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
        fields = text_of(PROC / str(pid) / "stat").rpartition(")")[2].split()
        uptime = float(text_of(PROC / "uptime").split()[0])
    except OSError:
        return None
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Processes that a process has started itself, the oldest first."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            # proc_pid_stat(5): the parent, and the start in clock ticks after boot
            if int(fields[1]) == pid:
                found.append((int(fields[19]), int(entry.name)))
    return [child for _start, child in sorted(found)]


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
        lines = text_of(PROC / str(pid) / "cgroup").splitlines()
    except OSError:
        return ""
    groups = {controllers: path for _number, controllers, path in (line.split(":", 2) for line in lines)}
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
