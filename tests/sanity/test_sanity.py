"""Ansible's own checks of a collection, on the built artifact."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from lab.config import CACHE
from tests.sanity import pythons

HOME = CACHE / "sanity"
# Stands for the get-pip.py that ansible-test would download: every Python that is used here brings a pip.
GET_PIP = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"


def prepare_home() -> None:
    """Make a home folder for ansible-test, which keeps its virtual environments there and passes no PIP_… on."""
    package = importlib.util.find_spec("ansible_test").submodule_search_locations[0]
    version = re.search(r"\bpip='([\d.]+)'", (Path(package) / "_internal/python_requirements.py").read_text())[1]
    get_pip = HOME / f".ansible/test/cache/get_pip_{version.replace('.', '_')}.py"
    get_pip.parent.mkdir(parents=True, exist_ok=True)
    get_pip.write_text(GET_PIP)
    asked = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    # `global.index-url='…'`, or `:env:.index-url='…'` from the environment, which comes last here and wins
    settings = dict(line.partition("=")[::2] for line in asked.stdout.splitlines())
    ordered = sorted(settings.items(), key=lambda item: item[0].startswith(":env:"))
    options = {name.rpartition(".")[2]: ast.literal_eval(value) for name, value in ordered}
    conf = HOME / ".config/pip/pip.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.unlink(missing_ok=True)
    conf.touch(mode=0o600)
    conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))


def test_ansible_test_sanity(tarball, tmp_path):
    """Every sanity test that ansible-test has for a collection, without exceptions, by the core of this environment.

    These look at files of this collection: action-plugin-docs, ansible-doc, changelog, compile, ignores, import,
    line-endings, no-assert, no-get-exception, no-illegal-filenames, no-smart-quotes, pep8, pylint, replace-urlopen,
    runtime-metadata, shebang, symlinks, use-argspec-type-path, use-compat-six, validate-modules, yamllint. There is
    nothing to look at for empty-init, integration-aliases, pslint and shellcheck.
    compile and import run on this Python and on the oldest one of this machine from 3.9.
    """
    collection = tmp_path / "ansible_collections/smolcluster/logging"
    with tarfile.open(tarball) as packed:
        packed.extractall(collection, filter="data")
    # ansible-test looks at the files that git knows.
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=collection, check=True)
    prepare_home()
    found = pythons.usable()
    own = sys.version_info.minor
    targets = {min(found), own}
    # Real folders come before pyenv's shims, which refuse versions that are not switched on.
    folders = [Path(sys.executable).parent, *(found[minor].parent for minor in sorted(targets - {own}))]
    command = ["ansible-test", "sanity", "--color=no", f"--controller=origin:python=3.{own}"]
    command += [f"--target-python=3.{minor}" for minor in sorted(targets)]
    done = subprocess.run(
        command,
        cwd=collection,
        env=os.environ | {"HOME": str(HOME), "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
