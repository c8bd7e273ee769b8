"""What holds the repository's files together: specs, READMEs, variables, links, the built collection."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.module_utils import ownership

ROOT = Path(__file__).resolve().parents[2]
# The public ones; role agent is internal.
ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
VARIABLE_FILES = sorted((ROOT / "group_vars").glob("*.yml"))
# Variables that a playbook reads, not a role. docs/deployment.md describes them.
PLAY_VARIABLES = {"smolcluster_address", "smolcluster_log_agent"}
# Variables of the whole collection that roles' variables default to.
SHARED_VARIABLES = {"smolcluster_log_sources"}
# What the built collection has at its top.
SHIPPED = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}
# Words that readers in other countries do not know, or that are translated word by word; none has a good use here.
WORDS_TO_AVOID = re.compile(
    r"\b(mend(s|ed|ing)?|unwell|anew|to be had|stands? against|h(o|e)ld(s|ing)? against|put(s|ting)? back|"
    r"belongs? into|(is|are|was|were|be) told|told apart|tells? apart|whole they are|own words|set-up by hand)\b",
    re.IGNORECASE,
)
# Files that users read, or that print messages.
VISIBLE = tuple(
    f"{folder}/" for folder in "changelogs docs group_vars inventory lab meta playbooks plugins roles tools".split()
)
PYTHON_TYPES = {"str": str, "path": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}

by_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
by_variable_file = pytest.mark.parametrize("file", VARIABLE_FILES, ids=lambda file: file.name)


def options(role: Path) -> dict[str, Any]:
    """Options of a role's main entry point."""
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    return specs["argument_specs"]["main"]["options"]


def defaults(role: Path) -> dict[str, Any]:
    """Defaults of a role, templates as they are written."""
    return yaml.safe_load((role / "defaults/main.yml").read_text())


def with_examples(text: str) -> str:
    """Text of a variable file with its commented examples switched on, as a user would do it."""
    lines = []
    in_example = False
    for line in text.splitlines():
        starts = re.match(r"# [a-z]+(_[a-z0-9]+)+:( |$)", line)
        in_example = bool(starts) or (in_example and line.startswith("#  "))
        lines.append(line.removeprefix("# ") if in_example else line)
    return "\n".join(lines)


def tracked(pattern: str = "") -> list[str]:
    """Files that git knows, relative to the root."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z", *([pattern] if pattern else [])]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [path for path in found.split("\0") if path]


def words_to_avoid(text: str) -> list[str]:
    """Words to avoid in a text; a phrase may be broken over two lines of text, comment or string literals."""
    joined = re.sub(r"[ \t]*\"?[ \t]*\n[ \t]*(f?\"|#)?[ \t]*", " ", text)
    return [found[0] for found in WORDS_TO_AVOID.finditer(joined)]


@by_role
def test_every_default_is_described_and_every_option_has_its_default(role):
    optional = {name for name, option in options(role).items() if not option.get("required")}
    assert set(defaults(role)) == optional


@by_role
def test_a_spec_names_the_value_that_is_used(role):
    named = {name: option["default"] for name, option in options(role).items() if not option.get("required")}
    assert named == defaults(role)


@by_role
def test_a_variable_carries_the_name_of_its_role(role):
    assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []


def test_readmes_of_the_roles_are_fresh():
    check = subprocess.run(
        [sys.executable, str(ROOT / "tools/role_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_what_the_role_marks_as_ours_is_what_the_modules_look_for():
    variables = yaml.safe_load((ROOT / "roles/agent/vars/main/host.yml").read_text())
    assert variables["__agent_marker"] == ownership.MARK


@by_variable_file
def test_the_example_inventory_reads_the_group_vars_of_the_root(file):
    link = ROOT / "inventory/group_vars" / file.name
    assert link.is_symlink(), f"{link} is missing: Ansible would ignore {file} without a word"
    assert link.samefile(file)


def test_the_inventory_has_no_group_vars_of_its_own():
    assert {path.name for path in (ROOT / "inventory/group_vars").iterdir()} == {path.name for path in VARIABLE_FILES}


@by_variable_file
def test_variables_and_examples_in_group_vars_exist(file):
    known = {name: option for role in ROLES for name, option in options(role).items()}
    values = yaml.safe_load(with_examples(file.read_text())) or {}
    unknown = [
        name
        for name in values
        if name not in known.keys() | PLAY_VARIABLES | SHARED_VARIABLES and not name.startswith("ansible_")
    ]
    assert unknown == []
    wrong = [
        f"{name}: {value!r}"
        for name, value in values.items()
        if name in known and not isinstance(value, PYTHON_TYPES[known[name].get("type", "str")])
    ]
    assert wrong == []


@pytest.mark.parametrize("name", sorted(PLAY_VARIABLES))
def test_variables_of_the_playbooks_are_used_and_described(name):
    playbooks = "".join(path.read_text() for path in (ROOT / "playbooks").rglob("*.yml"))
    assert re.search(rf"\b{name}\b", playbooks)
    assert f"`{name}`" in (ROOT / "docs/deployment.md").read_text()


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Names in the built collection."""
    folder = tmp_path_factory.mktemp("built")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    words = [str(galaxy), "collection", "build", str(ROOT), "--output-path", str(folder)]
    build = subprocess.run(words, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    (archive,) = folder.glob("smolcluster-logging-*.tar.gz")
    with tarfile.open(archive) as packed:
        return packed.getnames()


def test_the_collection_ships_its_parts_and_nothing_of_the_checkout(members):
    shipped = {name.split("/")[0] for name in members}
    # A file that git does not know is a developer's own affair.
    known_to_git = {path.split("/")[0] for path in tracked()}
    assert shipped >= SHIPPED
    assert shipped & known_to_git <= SHIPPED


def test_the_collection_ships_every_file_of_its_parts(members):
    folders = ("meta/", "playbooks/", "plugins/", "roles/")
    assert {path for path in tracked() if path.startswith(folders)} <= set(members)


def test_the_collection_ships_no_compiled_files(members):
    assert [name for name in members if "__pycache__" in name] == []


@pytest.mark.parametrize("page", [*tracked("*.md")])
def test_links_between_pages_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_every_path_of_the_map_in_contributing_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    layout = text[text.index("## Layout") : text.index("## Release")]
    named = [name for name in re.findall(r"`([\w./-]+)`", layout) if "/" in name and "ROLE" not in name]
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mend it, and start it anew.", ["Mend", "anew"]),
        ("# This stands\n# against that.", ["stands against"]),
        ('"the old agent was put "\n        f"back"', ["put back"]),
        ("Recommended: amend it, put it back later, and tell the user.", []),
    ],
)
def test_words_to_avoid_are_found(text, words):
    assert words_to_avoid(text) == words


def test_texts_have_no_words_to_avoid():
    files = [ROOT / path for path in tracked() if path.startswith(VISIBLE) or path.endswith(".md")]
    texts = {str(file): file.read_text("utf-8", "replace") for file in files if file.is_file()}
    assert {file: words for file, text in texts.items() if (words := words_to_avoid(text))} == {}
