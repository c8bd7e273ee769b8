"""Pythons of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

USABLE = "import ensurepip, sys, venv; print(sys.executable)"


def usable() -> dict[int, Path]:
    """Pythons that can make virtual environments, oldest first.

    Returns:
        Interpreters by the minor number of their version, from 3.9, the oldest that nodes may have.
    """
    # pyenv's shims refuse versions that are not switched on, so its folders are searched as well.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {}
    for minor in range(9, 15):
        name = f"python3.{minor}"
        for python in (shutil.which(name), *pyenv.glob(f"versions/3.{minor}.*/bin/{name}")):
            if python and minor not in found:
                asked = subprocess.run([python, "-c", USABLE], capture_output=True, text=True, check=False)
                if asked.returncode == 0:
                    found[minor] = Path(asked.stdout.strip())
    return found
