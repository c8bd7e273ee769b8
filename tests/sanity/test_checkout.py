"""A checkout that Ansible cannot use as it is: what the user sees, and that the documented way out works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
FOREIGN = ("ANSIBLE_CONFIG", "ANSIBLE_ROLES_PATH", "ANSIBLE_COLLECTIONS_PATH")


def git(*words: str | Path) -> None:
    """Run git; it must succeed."""
    subprocess.run(["git", *words], check=True, capture_output=True)


def syntax(checkout: Path, **env: str) -> tuple[int, str]:
    """Read site.yml as a run does.

    Parameters:
        checkout: folder that it is started in.
        env: additions to the environment, which has none of the user's own settings.

    Returns:
        Exit code, and everything that was printed.
    """
    command = [Path(sys.executable).with_name("ansible-playbook"), "site.yml", "--syntax-check"]
    clean = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    env = {**clean, "ANSIBLE_HOME": str(checkout / ".ansible"), "ANSIBLE_NOCOLOR": "1", **env}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def explained(output: str, message: str) -> bool:
    """Whether a message was printed and has a row in docs/troubleshooting.md; its first letter differs by core."""
    return message[1:] in output and f"| `{message}" in PAGE


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A clone of this checkout that can be used."""
    git("clone", "--quiet", ROOT, tmp_path / "clone")
    assert syntax(tmp_path / "clone")[0] == 0
    return tmp_path / "clone"


def test_a_checkout_that_everybody_may_write_is_explained(checkout):
    checkout.chmod(0o777)
    code, output = syntax(checkout)
    assert code != 0
    assert explained(output, "Ansible is being run in a world writable directory")
    assert syntax(checkout, ANSIBLE_CONFIG=str(checkout / "ansible.cfg"))[0] == 0
    checkout.chmod(0o775)
    assert syntax(checkout)[0] == 0


@pytest.mark.parametrize("name", ["ANSIBLE_CONFIG", "ANSIBLE_ROLES_PATH"])
def test_settings_of_another_place_are_explained(checkout, tmp_path, name):
    foreign = tmp_path / "other.cfg"
    foreign.write_text("[defaults]\nforks = 5\n")
    code, output = syntax(checkout, **{name: str(foreign)})
    assert code != 0
    assert explained(output, "the role 'promtail' was not found")
    assert f"`unset {'ANSIBLE_CONFIG ANSIBLE_ROLES_PATH'}`" in PAGE


def test_a_clone_without_symbolic_links_is_explained(tmp_path):
    checkout = tmp_path / "clone"
    git("clone", "--quiet", "--config=core.symlinks=false", ROOT, checkout)
    code, output = syntax(checkout)
    assert code != 0
    assert explained(output, "the role 'smolcluster.logging.agent' was not found")
    assert "`git checkout --force -- collections inventory/group_vars`" in PAGE
    git("-C", checkout, "config", "core.symlinks", "true")
    git("-C", checkout, "checkout", "--force", "--", "collections", "inventory/group_vars")
    assert syntax(checkout)[0] == 0
