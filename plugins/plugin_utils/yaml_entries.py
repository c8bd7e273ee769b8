# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""YAML files whose values know their file and line, for messages that name the place.

Ansible's own loader knows places, too, but only its internal API gives them to plugins. PyYAML's parser is used here;
no object is made from a tag.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import yaml

TAG = "tag:yaml.org,2002:"
KINDS = {
    yaml.MappingNode: "a mapping",
    yaml.SequenceNode: "a list",
}


class FileError(Exception):
    """A file cannot be used; each problem names the file, the line where there is one, and the way out.

    Parameters:
        problems: sentences.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def shown(text: str) -> str:
    """A text of a file as a message may have it: one line, of at most 60 characters, all of them printable."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    return line if len(line) <= 60 else f"{line[:59]}…"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A value in a YAML file.

    Parameters:
        file: path of the file.
        node: the value as PyYAML's parser found it.
    """

    file: Path
    node: yaml.Node

    @property
    def line(self) -> int:
        """Line of the file where the value begins, from 1."""
        return self.node.start_mark.line + 1

    @property
    def place(self) -> str:
        """File and line, as in `nodes.yaml:3`."""
        return f"{self.file}:{self.line}"

    @property
    def kind(self) -> str:
        """What the value is, for messages."""
        if isinstance(self.node, yaml.ScalarNode):
            return "empty" if self.is_empty else f"'{shown(self.node.value)}'"
        return KINDS[type(self.node)]

    @property
    def is_empty(self) -> bool:
        """Whether there is no value, or an empty text."""
        scalar = isinstance(self.node, yaml.ScalarNode)
        return scalar and (self.node.tag == f"{TAG}null" or not self.node.value.strip())

    @property
    def is_mapping(self) -> bool:
        """Whether it has fields."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def text(self) -> str | None:
        """The text; None for anything else, such as a number or `yes`."""
        return self.node.value.strip() if self.node.tag == f"{TAG}str" and not self.is_empty else None

    @property
    def number(self) -> int | None:
        """The whole number; None for anything else."""
        plain = isinstance(self.node, yaml.ScalarNode) and self.node.tag == f"{TAG}int"
        return int(self.node.value) if plain and re.fullmatch(r"-?(0|[1-9]\d{,8})", self.node.value) else None

    @property
    def items(self) -> list[Entry] | None:
        """Items of a list; None for anything else."""
        if not isinstance(self.node, yaml.SequenceNode):
            return None
        return [Entry(self.file, item) for item in self.node.value]

    @property
    def fields(self) -> dict[str, Entry]:
        """Values of a mapping by key; empty for anything else."""
        return {key.node.value: value for key, value in self._pairs() if isinstance(key.node, yaml.ScalarNode)}

    def _pairs(self) -> list[tuple[Entry, Entry]]:
        pairs = self.node.value if self.is_mapping else []
        return [(Entry(self.file, key), Entry(self.file, value)) for key, value in pairs]


def load(file: Path) -> Entry:
    """Read a file that has one mapping.

    Parameters:
        file: its path.

    Returns:
        The mapping; merge keys (`<<`) are resolved.

    Raises:
        FileError: the file cannot be read, is empty, or is not UTF-8, YAML or a mapping; or a key is there twice.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: {error.strerror}. Correct the path or its permissions.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(f"{file}:{line}: this is not UTF-8. Save the file with the encoding UTF-8.") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if problems := _duplicates(file, root):
            raise FileError(*problems)
    except yaml.YAMLError as error:
        raise FileError(_not_yaml(file, text, error)) from error
    except RecursionError as error:
        raise FileError(f"{file}: lists or mappings are nested too deeply. Remove some levels.") from error
    if root is None:
        raise FileError(f"{file}: the file is empty. Write the config into it, or name another file.")
    entry = Entry(file, root)
    if not entry.is_mapping:
        raise FileError(f"{entry.place}: the file has {entry.kind} at its top. It must be a mapping of keys to values.")
    return entry


def _not_yaml(file: Path, text: str, error: yaml.YAMLError) -> str:
    """What is wrong with a text that is not YAML, and where."""
    tab = re.search(r"^ *\t", text, re.MULTILINE)
    if tab:
        line = text.count("\n", 0, tab.end()) + 1
        return f"{file}:{line}: the line is indented with a tab, which YAML forbids. Use spaces."
    mark = getattr(error, "problem_mark", None)
    if mark:
        cause = " ".join(part for part in (error.context, error.problem) if part)
        return f"{file}:{mark.line + 1}: this is not YAML: {cause}. Correct the line, or the one above."
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"{file}:{line}: a control character (number {error.character}). Remove it."
    return f"{file}: this is not YAML: {error}. Correct it."


def _duplicates(file: Path, root: yaml.Node | None) -> list[str]:
    """Problems with keys that a mapping has twice; resolves the merge keys of every mapping.

    SmolCluster would use the last of two values without a message.
    """
    problems: list[tuple[int, str]] = []
    seen: set[int] = set()
    waiting = [root] if root else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            waiting += [key, value]
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{TAG}merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                first = lines[key.value]
                problems.append(
                    (line, f"{file}:{line}: the key {key.value} is already on line {first}. Remove one of them.")
                )
            lines.setdefault(key.value, line)
        yaml.constructor.SafeConstructor().flatten_mapping(node)
    return [text for line, text in sorted(problems)]
