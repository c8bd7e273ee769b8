"""Stand-ins for small programs of macOS; each is called by the name under which the image links it."""

from __future__ import annotations

import grp
import gzip
import json
import os
import plistlib
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from macsim.launchd import SOCKET, USAGE

# What tests set to play another Mac: `sleep` (minutes), `version` of macOS, `accounts_locked` (as for SSH without full
# disk access).
SETTINGS = Path("/var/macsim/settings.json")
TAPS = Path("/opt/homebrew/Library/Taps")
KEG = Path("/opt/homebrew/opt/promtail/bin/promtail")
# dscl's names of the fields of passwd(5), in their order.
FIELDS = ("RecordName", "Password", "UniqueID", "PrimaryGroupID", "RealName", "NFSHomeDirectory", "UserShell")
EMPTY = ("", "*", "", "20", "", "/var/empty", "/usr/bin/false")
OTHERS = ("IsHidden", "AuthenticationHint")


class NotUnderstoodError(Exception):
    """The stand-in does not know these arguments."""


def setting(name: str, default: object) -> object:
    """A setting of this Mac."""
    try:
        return json.loads(SETTINGS.read_text()).get(name, default)
    except FileNotFoundError:
        return default


def launchctl(words: list[str]) -> int:
    """launchctl(1): asks the stand-in of launchd."""
    if not words:
        raise NotUnderstoodError
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        connection.sendall(json.dumps(words).encode() + b"\n")
        code, out, err = json.loads(connection.makefile().readline())
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


def sw_vers(words: list[str]) -> int:
    """sw_vers(1)."""
    known = {"-productName": "macOS", "-productVersion": str(setting("version", "15.6")), "-buildVersion": "24G84"}
    if not words:
        print("".join(f"{name[1:].capitalize()}:\t\t{value}\n" for name, value in known.items()), end="")
    elif len(words) == 1 and words[0] in known:
        print(known[words[0]])
    else:
        raise NotUnderstoodError
    return 0


def uname(words: list[str]) -> int:
    """uname(1)."""
    identity = os.uname()
    known = {"-s": identity.sysname, "-m": identity.machine, "-r": identity.release, "-n": identity.nodename}
    known |= {"-v": identity.version, "-p": "arm", "": identity.sysname}
    if len(words) > 1 or (words and words[0] not in known):
        raise NotUnderstoodError
    print(known["".join(words)])
    return 0


def sysctl(words: list[str]) -> int:
    """sysctl(8), as far as Ansible's facts ask."""
    known = {"hw.model": "Mac16,10", "hw.ncpu": "10", "hw.memsize": "17179869184"}
    known |= {"machdep.cpu.brand_string": "Apple M4"}
    known |= {"kern.osrevision": "199506", "kern.boottime": "{ sec = 1700000000, usec = 0 } Tue Nov 14 22:13:20 2023"}
    known |= {"hw.physicalcpu": "10", "hw.logicalcpu": "10", "machdep.cpu.core_count": "10"}
    bare = words[:1] == ["-n"]
    names = words[bare:]
    if not names or any(name.startswith("-") for name in names):
        raise NotUnderstoodError
    for name in names:
        found = {key: value for key, value in known.items() if key == name or key.startswith(f"{name}.")}
        print("".join(f"{value}\n" if bare else f"{key}: {value}\n" for key, value in found.items()), end="")
    return 0


def plutil(words: list[str]) -> int:
    """plutil(1): `-lint FILE`."""
    if len(words) != 2 or words[0] != "-lint":
        raise NotUnderstoodError
    try:
        plistlib.loads(Path(words[1]).read_bytes())
    except (OSError, ValueError, plistlib.InvalidFileException) as error:
        print(f"{words[1]}: {error}")
        return 1
    print(f"{words[1]}: OK")
    return 0


def xattr(words: list[str]) -> int:
    """xattr(1): list, `-d NAME FILE`, `-w NAME VALUE FILE`."""
    match words:
        case [path] if not path.startswith("-"):
            print("".join(f"{name.removeprefix('user.')}\n" for name in os.listxattr(path)), end="")
        case ["-d", name, path]:
            try:
                os.removexattr(path, f"user.{name}")
            except OSError:
                print(f"xattr: {path}: No such xattr: {name}", file=sys.stderr)
                return 1
        case ["-w", name, value, path]:
            os.setxattr(path, f"user.{name}", value.encode())
        case _:
            raise NotUnderstoodError
    return 0


def pmset(words: list[str]) -> int:
    """pmset(1): `-g`, `-a sleep MINUTES`."""
    match words:
        case ["-g"]:
            print("System-wide power settings:\nCurrently in use:\n standby              0\n powernap             1")
            print(" networkoversleep     0\n disksleep            10")
            print(f" sleep                {setting('sleep', 0)}\n displaysleep         10\n womp                 1")
        case ["-a", "sleep", minutes] if minutes.isdigit():
            require_root("pmset: must be run as root...")
            known = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
            SETTINGS.write_text(json.dumps(known | {"sleep": int(minutes)}))
        case _:
            raise NotUnderstoodError
    return 0


def xcode_select(words: list[str]) -> int:
    """xcode-select(1): `-p`."""
    if words != ["-p"]:
        raise NotUnderstoodError
    print("/Library/Developer/CommandLineTools")
    return 0


def defaults(words: list[str]) -> int:
    """defaults(1): `read FILE KEY`; here nothing was ever set."""
    match words:
        case ["read", path, key] if path.startswith("/"):
            print(f"The domain/default pair of ({path}, {key}) does not exist", file=sys.stderr)
            return 1
    raise NotUnderstoodError


def require_root(words: str) -> None:
    """End with a message and code 1 unless root calls."""
    if os.geteuid():
        sys.exit(words)


def dscl(words: list[str]) -> int:
    """dscl(1) on users and groups of the local node, which here are /etc/passwd and /etc/group."""
    match words:
        case [".", "-list", "/Users", "UniqueID"]:
            print("".join(f"{user.pw_name:<24} {user.pw_uid}\n" for user in pwd.getpwall()), end="")
        case [".", "-search", "/Groups", "GroupMembership", name]:
            groups = [group.gr_name for group in grp.getgrall() if name in group.gr_mem]
            print("".join(f"{group}\t\tGroupMembership = (\n    {name}\n)\n" for group in groups), end="")
        case [".", "-read", path, field] if path.startswith("/Users/") and field in (*FIELDS, *OTHERS):
            return read_user(path.removeprefix("/Users/"), field)
        case [".", "-create", path] if path.startswith("/Users/"):
            write_user(path.removeprefix("/Users/"), {})
        case [".", "-create", path, field, value] if path.startswith("/Users/") and field in (*FIELDS, *OTHERS):
            write_user(path.removeprefix("/Users/"), {field: value})
        case [".", "-delete", path] if path.startswith("/Users/") and path.count("/") == 2:
            if setting("accounts_locked", False):
                print("<main> delete status: eDSPermissionError", file=sys.stderr)
                print("<dscl_cmd> DS Error: -14120 (eDSPermissionError)", file=sys.stderr)
                return 40
            write_user(path.removeprefix("/Users/"), None)
        case _:
            raise NotUnderstoodError
    return 0


def users() -> dict[str, list[str]]:
    """Lines of /etc/passwd by name."""
    return {line.split(":")[0]: line.split(":") for line in Path("/etc/passwd").read_text().splitlines()}


def read_user(name: str, field: str) -> int:
    """Print a field of a user as dscl does; a value with a space stands on a line of its own."""
    known = users()
    if name not in known:
        print("<dscl_cmd> DS Error: -14136 (eDSRecordNotFound)", file=sys.stderr)
        return 56
    if field not in FIELDS or not known[name][FIELDS.index(field)]:
        print(f"No such key: {field}", file=sys.stderr)
        return 0
    value = known[name][FIELDS.index(field)]
    print(f"{field}:\n {value}" if " " in value else f"{field}: {value}")
    return 0


def write_user(name: str, fields: dict[str, str] | None) -> None:
    """Make or change a user; none as fields removes it."""
    require_root("<main> attribute status: eDSPermissionError")
    known = users()
    record = known.pop(name, None) or [name, *EMPTY[1:]]
    if fields is not None:
        values = dict(zip(FIELDS, record, strict=True)) | {key: fields[key] for key in fields if key in FIELDS}
        # Without a number passwd(5) has no place for it yet.
        values["UniqueID"] = values["UniqueID"] or "400"
        known[name] = list(values.values())
    part = Path("/etc/passwd.part")
    part.write_text("".join(":".join(record) + "\n" for record in known.values()))
    part.chmod(0o644)
    part.replace("/etc/passwd")


def brew(words: list[str]) -> int:
    """Homebrew: `install --formula USER/TAP/promtail` from a tap that a test has laid down, nothing else."""
    if not os.geteuid():
        print("Error: Running Homebrew as root is extremely dangerous and no longer supported.", file=sys.stderr)
        return 1
    match words:
        case ["install", "--formula", name] if name.count("/") == 2:
            user, tap, formula = name.split("/")
            program = TAPS / user / f"homebrew-{tap}" / formula
            if not program.exists():
                print(f"Error: No available formula with the name {name!r}.", file=sys.stderr)
                return 1
            KEG.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, KEG)
        case ["install", *_, "promtail"]:
            print("Error: promtail has been disabled because it has an archived upstream repository!", file=sys.stderr)
            return 1
        case _:
            raise NotUnderstoodError
    return 0


def find(words: list[str]) -> int:
    """find(1): GNU's, but for what that of older macOS refuses (shell_cmds before 234)."""
    if "-delete" in words and any("/" in word for word in words):
        print(f"find: -delete: {words[0]}: relative path potentially not safe", file=sys.stderr)
        return 1
    return subprocess.call(["/usr/bin/gfind", *words])


def newsyslog(words: list[str]) -> int:
    """newsyslog(8) by /etc/newsyslog.d or `-f FILE`: moves large logs away (with `-F` all), and signals."""
    match words:
        case [] | ["-F"]:
            files = sorted(Path("/etc/newsyslog.d").glob("*.conf"))
        case ["-F", "-f", name]:
            files = [Path(name)]
        case _:
            raise NotUnderstoodError
    require_root("newsyslog: must have root privs")
    for path in files:
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                rotate(line.split(), force="-F" in words)
    return 0


def rotate(entry: list[str], force: bool) -> None:
    """Rotate one log.

    Parameters:
        entry: fields of newsyslog.conf(5): log, owner:group, mode, count, size in KiB, time, flags, PID file, signal.
        force: whether the size does not matter.
    """
    name, owner, mode, count, size, when, flags, pid_file, number = entry
    log = Path(name)
    if when != "*" or set(flags) - set("ZN") or owner.count(":") != 1:
        raise NotUnderstoodError(" ".join(entry))
    if not log.exists() or not (force or log.stat().st_size > int(size) * 1024):
        return
    for old in range(int(count) - 1, 0, -1):
        if (before := Path(f"{log}.{old - 1}.gz")).exists():
            before.replace(f"{log}.{old}.gz")
    log.rename(f"{log}.0")
    user, _, group = owner.partition(":")
    log.touch(mode=int(mode, 8))
    shutil.chown(log, user or None, group or None)
    pid = int(Path(pid_file).read_text())
    os.kill(pid, int(number))
    time.sleep(1)  # newsyslog waits for the daemon to let go of its log before it is compressed
    with gzip.open(f"{log}.0.gz", "wb") as packed:
        packed.write(Path(f"{log}.0").read_bytes())
    Path(f"{log}.0").unlink()


def mount(words: list[str]) -> int:
    """mount(8) without arguments, which lists what is mounted."""
    if words:
        raise NotUnderstoodError
    print("/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\ndevfs on /dev (devfs, local, nobrowse)")
    print("/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse, protect)")
    return 0


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "launchctl": launchctl, "sw_vers": sw_vers, "uname": uname, "sysctl": sysctl, "plutil": plutil, "xattr": xattr,
    "pmset": pmset, "dscl": dscl, "defaults": defaults, "brew": brew, "newsyslog": newsyslog, "find": find,
    "xcode-select": xcode_select, "mount": mount,
}  # fmt: skip


def main() -> int:
    """Play the program by whose name this is called; refuse what it does not know."""
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    try:
        return PROGRAMS[name](words)
    except NotUnderstoodError as error:
        print(f"stand-in of {name}: not understood: {str(error) or ' '.join(words)}", file=sys.stderr)
        return USAGE
