# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look up a host as Promtail does: in /etc/hosts, then with the DNS servers of /etc/resolv.conf.

The released programs are built with the tag `netgo` (Makefile of grafana/loki at v3.6.15), also for macOS. They use
Go's own resolver, which does not use mDNS or the other sources of nsswitch.conf(5); Python's `getaddrinfo` does.
Sources: Go, src/net/hosts.go, dnsconfig_unix.go, dnsclient_unix.go; RFC 1035, 4.1.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

HOSTS, RESOLV = Path("/etc/hosts"), Path("/etc/resolv.conf")
PORT = 53
# Seconds: for one question, and for all questions about a name.
PATIENCE, LIMIT = 2, 10
# Types of records by RFC 1035 and RFC 3596.
TYPES = {1: socket.AF_INET, 28: socket.AF_INET6}
NO_SUCH_NAME = 3


@dataclass
class Answer:
    """Result of a look-up.

    Parameters:
        addresses: addresses of the host; empty when none was found.
        servers: DNS servers that were asked; empty when the name is in /etc/hosts.
        certain: whether every question was answered; if not, a later look-up may find the name.
    """

    addresses: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)
    certain: bool = True


def lines_of(path: Path, comments: str) -> list[list[str]]:
    """Fields of each line of a system file, without comments; empty when it cannot be read."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    for mark in comments[1:]:
        text = text.replace(mark, comments[0])
    return [line.partition(comments[0])[0].split() for line in text.splitlines()]


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def in_hosts(name: str) -> list[str]:
    """Addresses that /etc/hosts has for a name."""
    wanted = name.rstrip(".").lower()
    rows = [fields for fields in lines_of(HOSTS, "#") if len(fields) > 1 and is_address(fields[0])]
    return [fields[0] for fields in rows if wanted in (other.rstrip(".").lower() for other in fields[1:])]


def settings() -> tuple[list[str], list[str], int]:
    """DNS servers, search domains, and how many dots a name needs to be tried without a search domain first."""
    servers, search, dots = [], None, 1
    for key, *fields in filter(None, lines_of(RESOLV, "#;")):
        if key == "nameserver" and fields and is_address(fields[0]):
            servers.append(fields[0])
        elif key == "domain" and fields:
            search = fields[:1]
        elif key == "search":
            search = fields
        elif key == "options":
            found = [field[6:] for field in fields if field.startswith("ndots:")]
            dots = int(found[-1]) if found and found[-1].isdigit() else dots
    if search is None:
        search = [domain] if (domain := os.uname().nodename.partition(".")[2]) else []
    return servers[:3] or ["127.0.0.1", "::1"], search, dots


def spellings(name: str, search: list[str], dots: int) -> list[str]:
    """Full names to ask for, in order."""
    if name.endswith("."):
        return [name]
    completed = [f"{name}.{domain.strip('.')}." for domain in search if domain.strip(".")]
    return [f"{name}.", *completed] if name.count(".") >= dots else [*completed, f"{name}."]


def question(number: int, name: str, kind: int) -> bytes:
    """A DNS message with one question.

    Raises:
        ValueError: the name is not valid in DNS.
    """
    labels = name.rstrip(".").encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels) or len(name) > 254:
        raise ValueError(name)
    asked = b"".join(bytes([len(label)]) + label for label in labels)
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + asked + struct.pack("!BHH", 0, kind, 1)


def behind_name(message: bytes, at: int) -> int:
    """Offset after a name in a DNS message."""
    while 0 < message[at] < 0xC0:
        at += message[at] + 1
    return at + (2 if message[at] else 1)


def addresses_in(message: bytes) -> list[str] | None:
    """Addresses in an answer of a DNS server; None when the server reports a failure.

    Raises:
        IndexError, struct.error, ValueError: it is not a valid answer.
    """
    flags, questions, answers = struct.unpack_from("!3H", message, 2)
    if flags & 0xF:
        return [] if flags & 0xF == NO_SUCH_NAME else None
    at, found = 12, []
    for _question in range(questions):
        at = behind_name(message, at) + 4
    for _answer in range(answers):
        at = behind_name(message, at)
        kind, _class, _ttl, size = struct.unpack_from("!HHIH", message, at)
        at += 10 + size
        if kind in TYPES:
            found.append(socket.inet_ntop(TYPES[kind], message[at - size : at]))
    return found


def ask(server: str, name: str, kind: int, patience: float) -> list[str] | None:
    """Addresses that a DNS server has for a full name; None when it gives no valid answer.

    Parameters:
        server: address of the server.
        name: the name.
        kind: 1 for IPv4, 28 for IPv6.
        patience: seconds to wait for the answer.
    """
    number = int.from_bytes(os.urandom(2), "big")
    try:
        numeric = socket.getaddrinfo(server, PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        family, where = numeric[0][0], numeric[0][4]
        with socket.socket(family, socket.SOCK_DGRAM) as channel:
            channel.settimeout(patience)
            channel.connect(where)
            channel.send(question(number, name, kind))
            while True:
                message = channel.recv(4096)
                if message[:2] == number.to_bytes(2, "big"):
                    return addresses_in(message)
    except (OSError, IndexError, struct.error, ValueError):
        return None


def look_up(name: str) -> Answer:
    """Addresses of a host, looked up as Promtail does.

    Parameters:
        name: a name or an address.
    """
    if is_address(name):
        return Answer([name])
    if found := in_hosts(name):
        return Answer(found)
    servers, search, dots = settings()
    answer, end = Answer(servers=servers), time.monotonic() + LIMIT
    for full in spellings(name, search, dots):
        for kind in TYPES:
            found = None
            for server in servers * 2:
                left = end - time.monotonic()
                if left > 0 and (found := ask(server, full, kind, min(PATIENCE, left))) is not None:
                    break
            answer.certain = answer.certain and found is not None
            answer.addresses += found or []
        if answer.addresses:
            break
    return answer


def known_to_system(name: str) -> bool:
    """Whether the system's own resolver, which uses more sources, has an address for a name."""
    try:
        return bool(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False


def refusal(addresses: list[str], port: int, patience: float = 3) -> str:
    """Why no address of a host accepts a connection; empty when one does.

    Parameters:
        addresses: addresses of the host.
        port: TCP port.
        patience: seconds to wait for each address.
    """
    said = ""
    for address in addresses[:4]:
        try:
            socket.create_connection((address, port), timeout=patience).close()
        except OSError as error:
            said = f"{address}: {error.strerror or error}"
        else:
            return ""
    return said
