# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: read text files of the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
name: file_texts
short_description: Read text files of the control node
description: Many files at once; with a lookup for each file, a run without changes takes noticeably longer.
author: [SmolCluster contributors (@smolcluster)]
positional: folder
options:
  _input: {description: Names of the files., type: list, elements: str, required: true}
  folder: {description: Folder of the files on the control node., type: path, required: true}
"""
EXAMPLES = r"""
programs: "{{ ['watcher.py', 'records.py'] | smolcluster.logging.file_texts('roles/agent/files') }}"
"""
RETURN = r"""
_value: {description: Text of each file by its name., type: dict}
"""

from pathlib import Path


def file_texts(names: list[str], folder: str) -> dict[str, str]:
    """Read text files.

    Parameters:
        names: names of the files.
        folder: folder of the files.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: (Path(folder) / name).read_text("utf-8") for name in names}


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"file_texts": file_texts}
