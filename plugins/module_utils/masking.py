# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Command lines of programs that are not ours, as they may be shown: without passwords, keys and tokens.

What a word means is known from its name alone, so a password in a place without one (`mysql -pSECRET`) is shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
# Characters of a command line that are shown at most. Any account may start programs with any arguments, of any length.
LENGTH = 2000
# Names with one of these hold a secret, however they are joined to others: PGPASSWORD, keyStorePassword, apikey.
ANYWHERE = re.compile(r"password|passwd|passphrase|secret|credential|apikey")
# These do as a part of their own: client.bearer-token, DB_PASS.
PARTS = frozenset(
    "pass requirepass masterauth keypass storepass pwd token tokens bearer sas cookie dsn authkey".split()
)
# A key is one only of such a kind; tls.key is a file.
KEYS = frozenset("api access account auth encryption license master private shared signing".split())
# A user and a password, separated by a colon.
PAIRS = frozenset("auth basicauth user proxyuser u".split())
# What a last part like this says about a secret is none: password-file, token-ttl, access-key-id.
ABOUT = frozenset(
    "file files path dir folder stdin fd url uri addr address host port type kind mode name username user id enabled "
    "ttl expiry timeout interval size length count limit policy scope".split()
)
# Tokens of a language model are none: max-tokens, pad_token.
LANGUAGE = frozenset("max min num new total pad eos bos unk sep cls mask stop special prompt per batch".split())

NAME = r"[A-Za-z][\w.-]*"
OPTION = re.compile(rf"-{{1,2}}({NAME})")
ASSIGNMENT = re.compile(rf"(-{{0,2}})({NAME})=(.*)", re.DOTALL)
# In the middle of a text: `name=value`, `"name": "value"`, and those of an address's query.
INNER = re.compile(rf"""(?<![\w./-])-{{0,2}}({NAME})["']?\s*[=:]\s*""")
VALUE = re.compile(r"""\*{3}|"[^"]*"|'[^']*'|[^\s"',;&}]+""")
# Words and spaces of a command for a shell.
TOKEN = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*'|["'])+|\s+""")
HEADER = re.compile(r"""(authorization["']?\s*[:=]\s*["']?)((?:[A-Za-z]+\s+)?[^\s"']+)""", re.IGNORECASE)
BEARER = re.compile(r"(\bbearer\s+)(?!-)[^\s\"']+", re.IGNORECASE)
ADDRESS = re.compile(r"://[^\s/?#]*@")
# The same without a scheme: user:password@host.
ACCOUNT = re.compile(r"(?<![\w/.:@])([\w.%+-]+):[^\s/:@]+@(?=[\w\[])")


def parts_of(name: str) -> list[str]:
    """Parts of a name in lower case: `clientSecret_id` has three."""
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
    """What may be shown of the value of a name."""
    if secret(name):
        return MASK
    user, colon, password = value.partition(":")
    # Two numbers are a user and a group.
    if pair(name) and colon and password and "/" not in user and not re.fullmatch(r"\d+:\d+", value):
        return f"{user}:{MASK}"
    return masked_phrase(value)


def masked_text(text: str) -> str:
    """A text without the secrets that can be seen in it."""
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
    """A text that may be a command for a shell, or a header, without secrets; see `masked_text`."""
    tokens = TOKEN.findall(text)
    if len(tokens) < 2:
        return masked_text(text)
    words = iter(words_masked([token for token in tokens if not token.isspace()]))
    return masked_text("".join(token if token.isspace() else next(words) for token in tokens))


def words_masked(words: Sequence[str]) -> list[str]:
    """Words of a command line without secrets; see `masked`."""
    found: list[str] = []
    name = ""  # of an option whose value is the next word
    for word in words:
        option, assignment = OPTION.fullmatch(word), ASSIGNMENT.fullmatch(word)
        following, name = name, ""
        if following and not (word.startswith("--") and (option or assignment)):
            found.append(masked_value(following, word))
        elif assignment:
            found.append(f"{assignment[1]}{assignment[2]}={masked_value(assignment[2], assignment[3])}")
        elif option:
            name = option[1] if secret(option[1]) or pair(option[1]) else ""
            found.append(word)
        else:
            found.append(masked_phrase(word))
    return found


def masked(words: Sequence[str]) -> str:
    """A command line as it may be shown: on one line, without passwords in addresses and values of secret names.

    Parameters:
        words: its arguments. Where a system gives them split at spaces, so may they be.

    Returns:
        At most `LENGTH` characters of the arguments, whole ones; `…` stands for the rest.
    """
    shown: list[str] = []
    room = LENGTH
    for word in words:
        room -= len(word) + 1
        if room < 0:
            break
        shown.append(word)
    # Headers of a system that splits them are whole again only here.
    text = masked_text(" ".join(words_masked(shown)))
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(shown) == len(words) else f"{text} …".strip()
