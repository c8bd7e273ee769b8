# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mask passwords, keys and tokens in command lines of other programs before they are shown.

A secret is recognised by the name before it only; a password without a name (`mysql -pSECRET`) is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
# Characters of a command line that are shown at most. Any account can start a program with very long arguments.
LENGTH = 2000
# A name that contains one of these marks a secret, even without a separator: PGPASSWORD, keyStorePassword, apikey.
ANYWHERE = re.compile(r"password|passwd|passphrase|secret|credential|apikey")
# These count only as a separate part of the name: client.bearer-token, DB_PASS.
PARTS = frozenset(
    "pass requirepass masterauth keypass storepass pwd token tokens bearer sas cookie dsn authkey".split()
)
# `key` counts only together with one of these; tls.key is a file.
KEYS = frozenset("api access account auth encryption license master private shared signing".split())
# Names whose value is a user and a password, separated by a colon.
PAIRS = frozenset("auth basicauth user proxyuser u".split())
# A name that ends in one of these describes a secret but is not one: password-file, token-ttl, access-key-id.
ABOUT = frozenset(
    "file files path dir folder stdin fd url uri addr address host port type kind mode name username user id enabled "
    "ttl expiry timeout interval size length count limit policy scope".split()
)
# Tokens of a language model are not secrets: max-tokens, pad_token.
LANGUAGE = frozenset("max min num new total pad eos bos unk sep cls mask stop special prompt per batch".split())

NAME = r"[A-Za-z][\w.-]*"
OPTION = re.compile(rf"-{{1,2}}({NAME})")
ASSIGNMENT = re.compile(rf"(-{{0,2}})({NAME})=(.*)", re.DOTALL)
# In the middle of a text: `name=value`, `"name": "value"`, and the query parameters of a URL.
INNER = re.compile(rf"""(?<![\w./-])-{{0,2}}({NAME})["']?\s*[=:]\s*""")
VALUE = re.compile(r"""\*{3}|"[^"]*"|'[^']*'|[^\s"',;&}]+""")
# Arguments and spaces of a shell command.
TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+|\s+""")
HEADER = re.compile(r"""(authorization["']?\s*[:=]\s*["']?)((?:[A-Za-z]+\s+)?[^\s"']+)""", re.IGNORECASE)
BEARER = re.compile(r"(\bbearer\s+)(?!-)[^\s\"']+", re.IGNORECASE)
ADDRESS = re.compile(r"://[^\s/?#]*@")
# The same without a scheme: user:password@host.
ACCOUNT = re.compile(r"(?<![\w/.:@])([\w.%+-]+):[^\s/:@]+@(?=[\w\[])")


def parts_of(name: str) -> list[str]:
    """Parts of a name in lower case: `clientSecret_id` has three parts."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def secret(name: str) -> bool:
    """Whether a name says that its value is a secret."""
    parts = parts_of(name)
    if not parts or parts[-1] in ABOUT:
        return False
    if ANYWHERE.search("".join(parts)) or parts[-2:] == ["basic", "auth"]:
        return True
    if "key" in parts:
        return bool(KEYS & set(parts))
    found = PARTS & set(parts)
    return bool(found) and not (found <= {"token", "tokens"} and LANGUAGE & set(parts))


def pair(name: str) -> bool:
    """Whether a name says that its value is a user and a password."""
    return "".join(parts_of(name)) in PAIRS


def masked_value(name: str, value: str) -> str:
    """The value of a name, with secrets masked."""
    if secret(name):
        return MASK
    user, colon, password = value.partition(":")
    # Two numbers are a user ID and a group ID.
    if pair(name) and colon and password and "/" not in user and not re.fullmatch(r"\d+:\d+", value):
        return f"{user}:{MASK}"
    return masked_phrase(value)


def masked_text(text: str) -> str:
    """A text with the secrets masked that can be recognised in it."""
    text = ADDRESS.sub(f"://{MASK}@", text)
    text = ACCOUNT.sub(rf"\1:{MASK}@", text)
    text = HEADER.sub(rf"\1{MASK}", text)
    text = BEARER.sub(rf"\1{MASK}", text)
    at = 0
    while found := INNER.search(text, at):
        at = found.end()
        value = VALUE.match(text, at)
        if value and secret(found[1]):
            text = f"{text[:at]}{MASK}{text[value.end() :]}"
            at += len(MASK)
    return text


def masked_phrase(text: str) -> str:
    """A text, possibly a shell command or an HTTP header, with secrets masked; see `masked_text`."""
    tokens = TOKEN.findall(text)
    if len(tokens) < 2:
        return masked_text(text)
    arguments = iter(masked_arguments([token for token in tokens if not token.isspace()]))
    return masked_text("".join(token if token.isspace() else next(arguments) for token in tokens))


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line with secrets masked; see `masked`."""
    found: list[str] = []
    name = ""  # of an option whose value is the next argument
    for argument in arguments:
        option, assignment = OPTION.fullmatch(argument), ASSIGNMENT.fullmatch(argument)
        following, name = name, ""
        if following and not (argument.startswith("--") and (option or assignment)):
            found.append(masked_value(following, argument))
        elif assignment:
            found.append(f"{assignment[1]}{assignment[2]}={masked_value(assignment[2], assignment[3])}")
        elif option:
            name = option[1] if secret(option[1]) or pair(option[1]) else ""
            found.append(argument)
        else:
            found.append(masked_phrase(argument))
    return found


def masked(arguments: Sequence[str]) -> str:
    """A command line on one line, with passwords in URLs and the values of secret names masked.

    Parameters:
        arguments: its arguments. They may also be split at spaces, as some systems report them.

    Returns:
        At most `LENGTH` characters, complete arguments only; `…` stands for the rest.
    """
    shown: list[str] = []
    room = LENGTH
    for argument in arguments:
        room -= len(argument) + 1
        if room < 0:
            break
        shown.append(argument)
    # A header that the system has split at spaces is complete only after the join.
    text = masked_text(" ".join(masked_arguments(shown)))
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(shown) == len(arguments) else f"{text} …".strip()
