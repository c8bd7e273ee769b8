# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What on a node was created by this collection, and what was not."""

from __future__ import annotations

import pwd
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.module_utils.changes import folder_of_others, read_regular

# The file MARKER marks the folder of versions as ours; the text MARK marks a unit and an account.
MARKER = ".managed-by-smolcluster-logging"
MARK = "Managed by smolcluster.logging"


def foreign_unit(path: Path, definition: str) -> str | None:
    """File of a unit with the service's name that this collection did not write; None when there is no such file.

    Parameters:
        path: path of our own unit.
        definition: file that the service manager has loaded the service from; empty when it knows no such service.
    """
    for candidate in filter(None, (str(path), definition)):
        try:
            # A property list may be binary.
            if MARK.encode() not in read_regular(candidate, follow=False):
                return candidate
        except FileNotFoundError:
            continue
        except OSError:  # a link, as for a masked unit, a folder or similar; this collection writes regular files only
            return candidate
    return None


def owner_of_home(home: Path) -> str:
    """Owner of the folder of versions: `ours`, `foreign` or `absent`. Ours has our mark, and only root controls it."""
    if folder_of_others(home):
        return "foreign"
    if (home / MARKER).exists():
        return "ours"
    # An archive without the mark was left by an interrupted run.
    foreign = home.is_dir() and any(entry.suffix != ".zip" and entry.name != ".lock" for entry in home.iterdir())
    return "foreign" if foreign else "absent"


def account(name: str) -> str:
    """Owner of a user account: `ours`, `foreign` or `absent`. Ours has our mark as its comment."""
    try:
        return "ours" if pwd.getpwnam(name).pw_gecos == MARK else "foreign"
    except KeyError:
        return "absent"
