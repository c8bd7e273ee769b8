# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What on a node is this collection's own, and what is somebody else's."""

from __future__ import annotations

import pwd
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.changes import folder_of_others, read_regular

# The file MARKER marks the folder of the versions as ours; the text MARK a unit and an account.
MARKER = ".managed-by-smolcluster-logging"
MARK = "Managed by smolcluster.logging"


def foreign_unit(path: Path, definition: str) -> str | None:
    """File of a unit of the service's name that this collection did not write; it writes regular files only.

    Parameters:
        path: where ours belongs.
        definition: where the service manager has the service from; empty when it knows none.
    """
    for candidate in filter(None, (str(path), definition)):
        try:
            # A property list need not be text.
            if MARK.encode() not in read_regular(candidate, follow=False):
                return candidate
        except FileNotFoundError:
            continue
        except OSError:  # a link, as of a masked unit, a folder, or something else that is none of ours
            return candidate
    return None


def owner_of_home(home: Path) -> str:
    """Whose the folder of the versions is: `ours`, `foreign` or `absent`; ours has our mark in it, and is root's."""
    if folder_of_others(home):
        return "foreign"
    if (home / MARKER).exists():
        return "ours"
    # An archive without the mark is what a run that was cut off has left.
    foreign = home.is_dir() and any(entry.suffix != ".zip" and entry.name != ".lock" for entry in home.iterdir())
    return "foreign" if foreign else "absent"


def account(name: str) -> str:
    """Whose a user is: `ours`, `foreign` or `absent`; ours has our mark as its comment."""
    try:
        return "ours" if pwd.getpwnam(name).pw_gecos == MARK else "foreign"
    except KeyError:
        return "absent"
