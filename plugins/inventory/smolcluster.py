# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible inventory plugin: the machines of SmolCluster's own cluster config."""

from __future__ import annotations

DOCUMENTATION = r"""
name: smolcluster
short_description: Machines of a SmolCluster config
description:
  - Reads a C(cluster_config_*.yaml) of SmolCluster as it is, with its C(nodes.yaml) if there is one, and puts the
    server and the workers into the group C(minis).
  - The inventory source is a short file with the options below, or the config itself. The config is recognised by its
    content, but only where C(enable_plugins) in C(ansible.cfg) has this plugin before C(yaml).
  - The config does not name the controller, the machine that runs Loki. Set the option O(controller), or add a second
    source (C(-i)) with the group C(controller).
  - Every node has C(smolcluster_component), which is C(server) or C(worker), and a worker has C(smolcluster_rank).
    C(ansible_host) and C(ansible_user) are set if the files have an address and an account.
  - A problem in one of the files ends the run, with the file and the line.
notes:
  - An address comes from C(nodes.yaml), else from C(ip) of the worker, else from C(host_ip). Two nodes with the same
    address are refused.
  - Machines that no agent runs on are left out with a warning. These are the C(tablets) of the config, and names with a
    word such as C(ipad) or C(win).
author: [SmolCluster contributors (@smolcluster)]
options:
  plugin:
    description: Name of this plugin; marks the file as its own.
    type: str
    required: true
    choices: [smolcluster.logging.smolcluster]
  config:
    description: Path of the C(cluster_config_*.yaml), from the folder of the inventory file.
    type: str
  nodes:
    description:
      - Path of a C(nodes.yaml), from the folder of the inventory file.
      - By default C(nodes.yaml) beside the config, else C(~/.config/smolcluster/nodes.yaml), if there is one.
    type: str
  controller:
    description:
      - IP address or name of the machine that runs Loki and Grafana. It can be one of the nodes.
      - The agents send to it, so an IP address is better than a name.
    type: str
  user:
    description: Account for SSH on all machines for which no file names one. By default Ansible's own setting.
    type: str
  ssh_aliases:
    description:
      - Connect to the nodes by their names, as in C(ssh mini1), and use no address of the files. C(~/.ssh/config) has
        to know the names.
      - For a config whose C(host_ip) has the server's address for all nodes.
    type: bool
    default: false
"""
EXAMPLES = r"""
# inventory/smolcluster.yml, used as: ansible-playbook -i inventory/smolcluster.yml site.yml
plugin: smolcluster.logging.smolcluster
config: ~/Desktop/smolcluster/src/smolcluster/configs/cluster_config_edp.yaml
controller: 10.10.0.4
---
# The config itself, with a second file for the controller:
# ansible-inventory -i cluster_config_edp.yaml -i controller.yml --graph
# where controller.yml is
controller:
  hosts:
    head:
      ansible_host: 10.10.0.4
"""

import difflib
import os
import re
from pathlib import Path
from typing import NoReturn

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.smolcluster.logging.plugins.plugin_utils import smolcluster_config, yaml_entries

HOME_NODES = "~/.config/smolcluster/nodes.yaml"


class InventoryModule(BaseInventoryPlugin):
    """Machines of a SmolCluster config."""

    NAME = "smolcluster.logging.smolcluster"
    # Values of a config are checked, so none is a template. Otherwise `ansible-inventory --list` marks them as unsafe.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        """Whether a source is a config of SmolCluster, or a file of this plugin's options."""
        file = Path(path)
        # A pipe could be read only once.
        if file.suffix not in (".yaml", ".yml") or not super().verify_file(path) or not file.is_file():
            return False
        return self._is_options(file) or smolcluster_config.is_config(file)

    def parse(self, inventory, loader, path, cache=True):
        """Put the machines into the inventory; see the base class."""
        super().parse(inventory, loader, path, cache)
        try:
            self._parse(Path(path))
        except yaml_entries.FileError as error:
            self._stop(AnsibleParserError(f"The inventory cannot be used.\n{error}"))
        except AnsibleError as error:
            self._stop(error)

    def _stop(self, error: AnsibleError) -> NoReturn:
        """End the run.

        After an exception Ansible would go on to its plugin `yaml`, which takes a config for an inventory with groups
        such as `host_ip`, and would not show the error at all.
        """
        self.display.error(error)
        raise SystemExit(4)  # Ansible's own code for a file that it cannot parse

    def _is_options(self, file: Path) -> bool:
        raw = file.read_bytes()
        if self.NAME.encode() not in raw:
            return False
        try:
            plugin = yaml_entries.load(file).fields.get("plugin")
        except yaml_entries.FileError:
            return re.search(rb"^plugin:.*smolcluster", raw, re.MULTILINE) is not None
        return plugin is not None and plugin.text == self.NAME

    def _parse(self, file: Path) -> None:
        if self._is_options(file):
            config = self._read_options(file)
        else:
            self.set_options(direct={"plugin": self.NAME})
            config = file
        if config is file and smolcluster_config.is_node_list(yaml_entries.load(file).fields):
            self._skip_node_list(file)
            return
        nodes = self._nodes_file(file.parent, config)
        cluster = smolcluster_config.read(
            config, nodes, by_name=self.get_option("ssh_aliases"), controller=self.get_option("controller")
        )
        self.inventory.add_group("minis")
        for node in cluster.nodes:
            self._add(node, config)
        if cluster.controller:
            self._add_controller(*cluster.controller)
        for name in cluster.left_out:
            self.display.warning(
                f"{config}: {name} is left out: no agent runs on phones, tablets and Windows. If it is something else, "
                "add it to the group minis in a second inventory file."
            )

    def _read_options(self, file: Path) -> Path:
        """Read a file of options; returns the path of the config."""
        yaml_entries.load(file)  # whose errors have the line
        stated = self._read_config_data(str(file))
        known = self.get_options()
        for key in stated:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise AnsibleParserError(
                    f"{file}: there is no option {key}.{hint} Known are {', '.join(sorted(known))}.", obj=key
                )
        config = self.get_option("config")
        if not config:
            raise AnsibleParserError(
                f"{file}: the option config is missing. Set it to the path of a cluster_config_*.yaml."
            )
        return file.parent / os.path.expanduser(config)

    def _skip_node_list(self, file: Path) -> None:
        """Check that a nodes.yaml as a source has a config beside it, with which it is read."""
        others = [other for other in file.parent.glob("*.y*ml") if other != file and other.is_file()]
        if not any(smolcluster_config.is_config(other) or self._is_options(other) for other in others):
            raise yaml_entries.FileError(
                f"{file}: this file alone does not say which machine is the server and which rank a worker has. Use a "
                "cluster_config_*.yaml as the inventory; this file is read with it when it is beside it."
            )

    def _nodes_file(self, folder: Path, config: Path) -> Path | None:
        if stated := self.get_option("nodes"):
            return folder / os.path.expanduser(stated)
        usual = (config.with_name("nodes.yaml"), Path(HOME_NODES).expanduser())
        found = next((file for file in usual if file.is_file()), None)
        if found:
            self.display.vv(f"{config}: addresses and accounts also come from {found}")
        return found

    def _add(self, node: smolcluster_config.Node, config: Path) -> None:
        """Add a node to the group `minis`."""
        described = {"smolcluster_component": node.component}
        if node.rank is not None:
            described["smolcluster_rank"] = node.rank
        before = self.inventory.hosts[node.name].get_vars() if node.name in self.inventory.hosts else {}
        if "smolcluster_component" in before and any(before.get(key) != value for key, value in described.items()):
            raise yaml_entries.FileError(
                f"{config}: {node.name} has another rank or is another component in {before['inventory_file']}. "
                "Use one config at a time."
            )
        self.inventory.add_host(node.name, group="minis")
        connection = {"ansible_host": node.address, "ansible_user": node.user or self.get_option("user")}
        for key, value in (described | connection).items():
            if value is not None:
                self.inventory.set_variable(node.name, key, value)

    def _add_controller(self, name: str, address: str | None) -> None:
        """Add the machine that runs Loki to the group `controller`."""
        new = name not in self.inventory.hosts
        self.inventory.add_group("controller")
        self.inventory.add_host(name, group="controller")
        user = self.get_option("user")
        if address:
            self.inventory.set_variable(name, "ansible_host", address)
        if new and user:
            self.inventory.set_variable(name, "ansible_user", user)
