# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages of the system own a file. Asks dpkg and rpm, where they are installed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run

DPKG, RPM = "/usr/bin/dpkg-query", "/usr/bin/rpm"


def names_of(path: str) -> list[str]:
    """A path as packages may name it: where /lib is a link to /usr/lib, packages use either."""
    return [path, path.removeprefix("/usr")] if re.match(r"/usr/(s?bin|lib)/", path) else [path]


def owners(run: Run, paths: Iterable[str]) -> dict[str, str]:
    """Packages that own files.

    Parameters:
        run: function that runs a command.
        paths: absolute paths; they need not exist.

    Returns:
        The command that removes the package, by the package's name.

    Sources: dpkg-query(1), `--search` (`package, package: path`; diversions have separate lines); rpm(8), `-qf`.
    """
    asked = sorted({name for path in paths if path for name in names_of(path)})
    found: dict[str, str] = {}
    if not asked:
        return found
    if os.access(DPKG, os.X_OK):
        # The arguments are patterns; a backslash makes a character literal.
        patterns = [re.sub(r"([*?\[\\])", r"\\\1", path) for path in asked]
        out = run([DPKG, "--search", "--", *patterns])[1]
        for line in out.splitlines():
            packages, colon, path = line.rpartition(": ")
            if colon and path in asked and not line.startswith("diversion by "):
                found |= {name.strip(): f"apt-get remove {name.strip()}" for name in packages.split(",")}
    if os.access(RPM, os.X_OK):
        for path in filter(os.path.lexists, asked):
            code, out, _err = run([RPM, "-qf", "--queryformat", "%{NAME}\n", path])
            if not code:
                found |= {name: f"rpm --erase {name}" for name in out.split()}
    return found
