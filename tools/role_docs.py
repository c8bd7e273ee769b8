#!/usr/bin/env python3
"""Make each role's README from its meta/argument_specs.yml and defaults/main.yml.

Usage: tools/role_docs.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "smolcluster.logging"
# Longer values are in defaults/main.yml only.
LONGEST_DEFAULT = 70

# Ansible's markup for documentation, for example C(text) and L(text,address), in Markdown.
MARKUP = (
    (re.compile(r"\b[CVOE]\(([^()]*)\)"), r"`\1`"),
    (re.compile(r"\bI\(([^()]*)\)"), r"*\1*"),
    (re.compile(r"\bB\(([^()]*)\)"), r"**\1**"),
    (re.compile(r"\bL\(([^(),]*),\s*([^()]*)\)"), r"[\1](\2)"),
    (re.compile(r"\bU\(([^()]*)\)"), r"<\1>"),
)


def paragraphs(text: str | list[str] | None) -> list[str]:
    """Description from a spec as Markdown paragraphs; a spec allows one text or a list."""
    result = [text] if isinstance(text, str) else list(text or [])
    for pattern, markdown in MARKUP:
        result = [pattern.sub(markdown, paragraph.strip()) for paragraph in result]
    return result


def cell(text: str) -> str:
    """Text that does not break a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def code(value: Any) -> str:
    """Value as written in YAML, marked as code."""
    text = '""' if value == "" else yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n")
    return f"`{text.strip()}`"


def shown_default(name: str, option: dict[str, Any], defaults: dict[str, Any]) -> str:
    """Default of an option for the table; a link where it is long."""
    if option.get("required"):
        return "required"
    if name not in defaults and "default" not in option:
        return ""
    value = defaults.get(name, option.get("default"))
    text = f"`{value}`" if isinstance(value, str) and value else code(value)
    return text if len(text) <= LONGEST_DEFAULT else "[defaults/main.yml](defaults/main.yml)"


def rows(options: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Rows of the table, an option's own options right below it."""
    for name, option in options.items():
        kind = option.get("type", "str")
        if kind == "list" and "elements" in option:
            kind = f"list of {option['elements']}"
        text = " ".join(paragraphs(option["description"]))
        if "choices" in option:
            text += f" One of {', '.join(code(choice) for choice in option['choices'])}."
        columns = (f"`{prefix}{name}`", kind, shown_default(name, option, {} if prefix else defaults), text)
        yield f"| {' | '.join(cell(column) for column in columns)} |"
        yield from rows(option.get("options", {}), {}, f"{prefix}{name}{'[]' if option.get('type') == 'list' else ''}.")


def readme(role: Path) -> str:
    """README of a role.

    Parameters:
        role: folder of the role.
    """
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    main = specs["main"]
    example = main.get("examples") or (
        f"- name: {main['short_description']}\n"
        "  hosts: all\n"
        "  become: true\n"
        "  roles:\n"
        f"    - role: {COLLECTION}.{role.name}\n"
    )
    lines = [
        "<!-- Made by tools/role_docs.py from meta/argument_specs.yml and defaults/main.yml. Edit those. -->",
        "",
        f"# {COLLECTION}.{role.name}",
        "",
        f"{main['short_description'].rstrip('.')}.",
        "",
    ]
    for paragraph in paragraphs(main.get("description")):
        lines += [paragraph, ""]
    lines += ["## Variables", "", "| Variable | Type | Default | Description |", "|---|---|---|---|"]
    lines += [*rows(main.get("options", {}), defaults), ""]
    others = {name: spec for name, spec in specs.items() if name != "main"}
    if others:
        lines += ["## Other entry points", "", "With `tasks_from`:", ""]
        for name, spec in others.items():
            lines += [f"- `{name}`: {spec['short_description'].rstrip('.')}."]
            if spec["options"] != main["options"]:
                own = [
                    f"  - `{option}`: {' '.join(paragraphs(fields['description']))}"
                    for option, fields in spec["options"].items()
                ]
                lines += ["  Its variables are:", "", *own]
        lines += [""]
    lines += ["## Example", "", "```yaml", example.strip(), "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the READMEs, or say which are stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a README is stale")
    check = parser.parse_args().check
    stale = []
    for role in sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")):
        target = role / "README.md"
        text = readme(role)
        if target.is_file() and target.read_text() == text:
            continue
        stale.append(str(target.relative_to(ROOT)))
        if not check:
            target.write_text(text)
    for path in stale:
        print(f"{path}: {'stale; run tools/role_docs.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
