# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Remove what a deployment has created on a node, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.smolcluster.logging.plugins.module_utils import archive, host, ownership
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import (
    PROGRAM_FILES,
    STATE_FILES,
    Layout,
    layout_of,
)

# Temporary folders that an interrupted deployment leaves; the names are from tempfile.
PARTIAL = re.compile(r"\.(\d+(\.\d+)+|homebrew)\.\w+")


def made_files(layout: Layout) -> list[Path]:
    """Files that a deployment and the agent have created on this node; folders that others may use are left out.

    Parameters:
        layout: paths of the agent.
    """
    home, data, configuration = Path(layout.home), Path(layout.data), Path(layout.config_file).parent
    watcher = Path(layout.watcher_settings).name
    found = [path.parent for path in home.glob(f"*/{archive.MANIFEST}")]
    found += [path for path in entries(home) if PARTIAL.fullmatch(path.name)]
    found += [path for path in entries(home) if re.fullmatch(rf"{layout.agent}-.*\.zip|\.ansible_tmp.*", path.name)]
    found += [home / name for name in ("current", ".current.partial", ".lock", "__pycache__", *PROGRAM_FILES)]
    found += [Path(layout.config_file), Path(layout.watcher_settings)]
    found += [
        data / name
        for name in (*STATE_FILES, "positions.yaml", "watch.json", "watcher.pid", "health.log", "health.log.1")
    ]
    found += [path for path in entries(data) if re.fullmatch(r"files(\.\d+)?", path.name)]
    for folder, names in (
        (home, PROGRAM_FILES),
        (configuration, (Path(layout.config_file).name, watcher)),
        (data, (*STATE_FILES, "watch.json", "watcher.pid", "positions.yaml")),
    ):
        found += [path for path in entries(folder) if any(path.name.startswith(f".{name}.") for name in names)]
    if layout.log_file:
        log = Path(layout.log_file)
        found += [path for path in entries(log.parent) if path.name.startswith(log.name)]
    found += [Path(path) for path in (layout.boot_file, layout.log_settings) if path]
    # The marker comes last: without it the rest no longer counts as ours, and so an interrupted run could not go on.
    found.append(home / ownership.MARKER)
    return [path for path in dict.fromkeys(found) if path.exists() or path.is_symlink()]


def entries(folder: Path) -> list[Path]:
    """Entries of a folder in order; empty when the folder is missing."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


class Removal:
    """The removal of an agent from one node.

    Parameters:
        module: the module that runs; gives parameters and commands.
    """

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changes: list[str] = []

    def apply(self) -> dict[str, Any]:
        """Remove the service, its files, and the folders that are empty afterwards.

        Returns:
            Results of the module.

        Raises:
            DeploymentError: the service's definition is not ours, but the other files are; nothing was changed.
        """
        layout = layout_of(self.module.params["agent"], host.SYSTEM)
        unit = Path(layout.unit_file)
        ours = ownership.owner_of_home(Path(layout.home)) == "ours"
        foreign = ownership.foreign_unit(unit, "")
        if ours and foreign:
            raise DeploymentError(
                f"{unit} was changed or replaced by somebody else, and its program may be in use. Nothing was changed. "
                f"Remove that service yourself and run this again, or deploy with {layout.agent}_adopt: true first"
            )
        if not foreign:
            self.remove_service(layout, unit)
        if ours:
            self.remove_files(layout)
        self.remove_folders(layout)
        return {"changed": bool(self.changes), "changes": self.changes, "restarted": False, "retired": [], "notes": []}

    def remove_service(self, layout: Layout, unit: Path) -> None:
        """Stop the service permanently and remove its definition. It may still run even if its file is missing."""
        service = host.Service(self.module.run_command, layout.service)
        if unit.exists() or service.state().definition == str(unit):
            self.changes.append(f"service {layout.service} removed")
            if not self.module.check_mode:
                service.remove(unit)

    def remove_files(self, layout: Layout) -> None:
        """Remove files, and folders that only this collection uses."""
        for path in made_files(layout):
            self.changes.append(f"{path} removed")
            if self.module.check_mode:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def remove_folders(self, layout: Layout) -> None:
        """Remove empty folders; others contain files that are not ours."""
        folders = [layout.home, str(Path(layout.config_file).parent), layout.data, *layout.folders]
        for folder in map(Path, dict.fromkeys(folders)):
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                self.changes.append(f"{folder} removed")
                if not self.module.check_mode:
                    folder.rmdir()
