# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines that a cluster config of SmolCluster describes: `cluster_config_*.yaml`, and `nodes.yaml` if there is one.

The shapes are those of all versions of these files in the repository YuvrajSingh-mist/smolcluster until May 2026:

- `workers` is a list of names or of mappings with `hostname` and `rank`, or has such lists as `regular` and `tablets`.
  Or it is below a key that ends with `Topology`: then there is no `server`, and the worker with rank 0 coordinates.
- `host_ip` is at the top, or below `syncPS`. A worker connects to the address that host_ip has for its own name, so it
  is often the server's address. The launch scripts use SSH by name (`ssh mini1`).
- `nodes.yaml` has the address and the account that SSH uses, for workers only.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.smolcluster.logging.plugins.plugin_utils import yaml_entries
from ansible_collections.smolcluster.logging.plugins.plugin_utils.yaml_entries import Entry, FileError

FILE_NAME = re.compile(r"cluster_config.*\.ya?ml")
TOPOLOGY = "Topology"
# Kinds of machines in names that no agent runs on, as in `ipad` and `win`, two names that SmolCluster uses.
UNSUPPORTED = {"android", "ios", "ipad", "iphone", "phone", "tablet", "win", "windows"}
# Names of groups that a host must not have.
GROUPS = {"all", "controller", "minis", "ungrouped"}
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS_NAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})*")
ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]*")
# Labels of an address or an account that nobody has filled in, as in `x.x.x.x` or SmolCluster's own `youruser`.
PLACEHOLDER = re.compile(
    r"(x+|(your|insert|replace).*|change-?me|todo|fixme|tbd|placeholder|unknown|none|ip|address)", re.IGNORECASE
)
SHAPE = "Expected is a list of names, or of mappings with hostname and rank; or such lists as regular and tablets"
OWN_ADDRESS = (
    "In such configs host_ip is often the address at which a worker reaches the server. Name the address of each node "
    "in a nodes.yaml beside the config, or as ip of the worker; or set the option ssh_aliases (docs/deployment.md)."
)


@dataclasses.dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Parameters:
        name: its name in the config.
        component: `server` or `worker`.
        rank: rank of a worker, from 0; None for the server.
        address: IP address or name; None to connect by the name of the node.
        user: account for SSH, if a file names one.
    """

    name: str
    component: str
    rank: int | None = None
    address: str | None = None
    user: str | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What a config describes.

    Parameters:
        nodes: machines that an agent can run on, the server first.
        left_out: names of the other machines.
        controller: name and address of the controller that was asked for; the address is None to use the name.
    """

    nodes: list[Node]
    left_out: list[str]
    controller: tuple[str, str | None] | None = None


def is_config(file: Path) -> bool:
    """Whether a file is a cluster config or a nodes.yaml of SmolCluster, by its content.

    A file with the name of a config is one, too, unless it is an inventory: its user then gets a message about what is
    wrong with it.

    Parameters:
        file: path of a file.
    """
    raw = file.read_bytes()
    named = bool(FILE_NAME.fullmatch(file.name))
    if not named and not any(key in raw for key in (b"host_ip", b"num_workers", b"Topology", b"alias")):
        return False
    try:
        top = yaml_entries.load(file).fields
    except FileError:
        return named or re.search(rb"^(host_ip|num_workers)[ \t]*:", raw, re.MULTILINE) is not None
    if "plugin" in top or _is_inventory(top):
        return False
    keys = top.keys() & {"host_ip", "num_workers"} or any(key.endswith(TOPOLOGY) for key in top)
    return named or bool(keys) or is_node_list(top)


def _is_inventory(top: dict[str, Entry]) -> bool:
    """Whether the keys of a file are groups of an inventory in YAML."""
    parts = [value.fields.keys() for value in top.values() if value.is_mapping or value.is_empty]
    return len(parts) == len(top) and any(parts) and all(keys <= {"hosts", "children", "vars"} for keys in parts)


def is_node_list(top: dict[str, Entry]) -> bool:
    """Whether the keys of a file are those of nodes.yaml."""
    return top.keys() == {"nodes"} and bool(top["nodes"].items) and "alias" in top["nodes"].items[0].fields


def read(config: Path, nodes: Path | None = None, *, by_name: bool = False, controller: str | None = None) -> Cluster:
    """Nodes of a config.

    Parameters:
        config: path of the config.
        nodes: path of a nodes.yaml, whose addresses come before those of the config.
        by_name: whether to connect to the nodes by their names, without any address.
        controller: name or IP address of the machine that runs Loki, if it is known here.

    Returns:
        Its nodes, and where the controller is.

    Raises:
        FileError: a file cannot be used, or contradicts itself; with all problems at once.
    """
    return _Reader(config, nodes, by_name).cluster(controller)


def kind_is_unsupported(name: str) -> bool:
    """Whether the name of a machine says that no agent runs on it (a phone, a tablet, Windows)."""
    return bool(set(re.split(r"[^a-z]+", name.lower())) & UNSUPPORTED)


@dataclasses.dataclass(frozen=True)
class _Machine:
    """A machine as the config names it.

    Parameters:
        name: its name.
        place: the entry that names it.
        rank: rank of a worker; None for the server.
        fields: other keys beside the name.
        tablet: whether it is in the list of tablets.
    """

    name: str
    place: Entry
    rank: int | None = None
    fields: dict[str, Entry] = dataclasses.field(default_factory=dict)
    tablet: bool = False

    @property
    def is_left_out(self) -> bool:
        """Whether no agent runs on it."""
        return self.tablet or kind_is_unsupported(self.name)


class _Reader:
    """Reads one config, and collects problems on the way."""

    def __init__(self, config: Path, nodes: Path | None, by_name: bool) -> None:
        self._problems: list[str] = []
        self._config = yaml_entries.load(config)
        self._top = self._config.fields
        self._by_name = by_name
        below = self._top.get("syncPS")
        self._host_ip = self._top.get("host_ip") or (below.fields.get("host_ip") if below else None)
        self._known = self._known_nodes(yaml_entries.load(nodes)) if nodes else {}

    def cluster(self, controller: str | None) -> Cluster:
        """Everything that the config describes, or a FileError."""
        container = self._container()
        workers = list(self._workers(container))
        server = self._server(workers)
        self._check_count(workers)
        machines = ([server] if server else []) + workers
        self._check_unique(machines)
        kept = [machine for machine in machines if not machine.is_left_out]
        if not kept:
            self._problem(container, "no agent runs on any of these machines. Name at least one other.")
        addresses = {machine.name: self._address(machine) for machine in kept}
        self._check_addresses(addresses)
        place = self._controller(controller, addresses) if controller else None
        nodes = [
            Node(
                name=machine.name,
                component="server" if machine is server else "worker",
                rank=machine.rank,
                address=entry.text if (entry := addresses[machine.name]) else None,
                user=self._user(machine),
            )
            for machine in kept
        ]
        if self._problems:
            raise FileError(*self._problems)
        return Cluster(nodes, [machine.name for machine in machines if machine.is_left_out], place)

    def _problem(self, entry: Entry, text: str) -> None:
        self._problems.append(f"{entry.place}: {text}")

    def _known_nodes(self, root: Entry) -> dict[str, dict[str, Entry]]:
        """Fields of the entries of nodes.yaml by alias."""
        listed = root.fields.get("nodes")
        if listed is None or listed.items is None:
            raise FileError(f"{root.place}: there is no list nodes. Its entries have the keys alias, ip and user.")
        found: dict[str, dict[str, Entry]] = {}
        for item in listed.items:
            alias = item.fields.get("alias")
            if alias is None or not alias.text:
                self._problem(item, "this entry of nodes has no alias. Add the name of the node.")
            elif alias.text in found:
                first = found[alias.text]["alias"].line
                self._problem(
                    alias, f"{yaml_entries.shown(alias.text)} is already on line {first}. Remove one of them."
                )
            else:
                found[alias.text] = item.fields
        return found

    def _container(self) -> Entry:
        """The one value that lists the workers."""
        found = [self._top["workers"]] if "workers" in self._top else []
        for key, value in self._top.items():
            if key.endswith(TOPOLOGY) and "workers" in value.fields:
                found.append(value.fields["workers"])
        if not found:
            raise FileError(
                f"{self._config.place}: no workers are listed, so this is no cluster config of SmolCluster in a known "
                "shape. Expected is the key workers, at the top or below a key such as allToAllTopology."
            )
        if len(found) > 1:
            lines = " and ".join(str(entry.line) for entry in found)
            raise FileError(f"{self._config.file}: workers are listed on lines {lines}. Remove all but one list.")
        return found[0]

    def _workers(self, container: Entry) -> Iterator[_Machine]:
        """Workers in the order of the file."""
        lists = {"regular": container}
        if container.fields and container.fields.keys() <= {"regular", "tablets"}:
            # Either may be empty.
            lists = {key: entry for key, entry in container.fields.items() if not entry.is_empty}
        items: list[tuple[Entry, bool]] = []
        for key, entry in lists.items():
            if entry.items is None:
                raise FileError(f"{entry.place}: the list of workers is {entry.kind}. {SHAPE}.")
            items += [(item, key == "tablets") for item in entry.items]
        mappings = any(item.is_mapping for item, tablet in items)
        for number, (item, tablet) in enumerate(items, 1):
            if mappings and not item.is_mapping:
                self._problem(item, f"a worker is {item.kind}, others are mappings. Write all in the same way.")
                continue
            name = item.fields.get("hostname") if mappings else item
            if name is None:
                self._problem(item, "this worker has no hostname. Add the key hostname.")
            elif self._is_name(name):
                # The launch scripts count a list of names from 1.
                yield _Machine(name.text, name, self._rank(name, item) if mappings else number, item.fields, tablet)

    def _is_name(self, entry: Entry) -> bool:
        """Whether an entry is the name of a host; if not, a problem is added."""
        name = entry.text or ""
        if HOST.fullmatch(name) and name not in GROUPS:
            return True
        cause = "that is a group of the inventory" if name in GROUPS else "that is no name of a host"
        rule = "Use letters, digits, points, hyphens and underscores; put a number in quotes."
        self._problem(entry, f"the name of a machine is {entry.kind}; {cause}. {rule}")
        return False

    def _rank(self, name: Entry, item: Entry) -> int | None:
        rank = item.fields.get("rank")
        if rank is None:
            self._problem(item, f"{name.text} has no rank. Add the key rank.")
        elif rank.number is None or rank.number < 0:
            self._problem(rank, f"the rank of {name.text} is {rank.kind}. It must be a whole number from 0.")
        else:
            return rank.number
        return None

    def _server(self, workers: list[_Machine]) -> _Machine | None:
        """The training server; None where the worker with rank 0 coordinates."""
        server = self._top.get("server")
        if server is not None:
            return _Machine(server.text, server) if self._is_name(server) else None
        if "workers" in self._top and not any(worker.rank == 0 for worker in workers):
            self._problem(
                self._config, "the key server is missing, and no worker has rank 0. Name the training server."
            )
        return None

    def _check_count(self, workers: list[_Machine]) -> None:
        """Check num_workers; with another problem the number of workers may be unknown."""
        stated = self._top.get("num_workers")
        if stated is None or self._problems:
            return
        # Without a server, some configs do not count the worker with rank 0.
        zero = "server" not in self._top and any(worker.rank == 0 for worker in workers)
        if stated.number is None:
            self._problem(stated, f"num_workers is {stated.kind}. It must be a whole number.")
        elif stated.number not in (len(workers), len(workers) - zero):
            listed = f"num_workers is {stated.number}, but the list of workers has {len(workers)}"
            self._problem(stated, f"{listed}. Correct the number or the list.")

    def _check_unique(self, machines: list[_Machine]) -> None:
        """Check that no name and no rank is there twice."""
        names: dict[str, _Machine] = {}
        ranks: dict[int, _Machine] = {}
        for machine in machines:
            first = names.setdefault(machine.name, machine)
            if first is not machine:
                rule = "A machine can be there once, as the server or as a worker. Remove one of them."
                self._problem(machine.place, f"{machine.name} is also on line {first.place.line}. {rule}")
            elif machine.rank is not None and (other := ranks.setdefault(machine.rank, machine)) is not machine:
                also = f"and so has {other.name} on line {other.place.line}"
                rule = "Give each worker its own rank."
                self._problem(machine.place, f"{machine.name} has rank {machine.rank}, {also}. {rule}")

    def _candidates(self, name: str, fields: dict[str, Entry]) -> list[Entry]:
        """Values for the address of a machine, the best first.

        Parameters:
            name: its name.
            fields: what the config has below its name.
        """
        host_ip = self._host_ip.fields if self._host_ip else {}
        found = (self._known.get(name, {}).get("ip"), fields.get("ip"), host_ip.get(name))
        return [entry for entry in found if entry and not entry.is_empty]

    def _address(self, machine: _Machine) -> Entry | None:
        """Address of a node; None by name, or with a problem."""
        if self._by_name:
            return None
        found = self._candidates(machine.name, machine.fields)
        if not found:
            where = f"host_ip ({self._host_ip.place})" if self._host_ip else "host_ip"
            self._problem(machine.place, f"{machine.name} has no address. Add it to {where} or to nodes.yaml.")
            return None
        if cause := address_problem(found[0].text):
            told = f"the address of {machine.name} is {found[0].kind}; {cause}"
            self._problem(found[0], f"{told}. Write the address at which SSH reaches it.")
            return None
        return found[0]

    def _check_addresses(self, addresses: dict[str, Entry | None]) -> None:
        """Check that no two nodes have the same address."""
        owners: dict[str, list[tuple[str, Entry]]] = {}
        for name, entry in addresses.items():
            if entry:
                owners.setdefault(_normal(entry.text), []).append((name, entry))
        for address, found in owners.items():
            if len(found) > 1:
                places = ", ".join(f"{name} ({entry.place})" for name, entry in found)
                self._problem(found[0][1], f"several nodes have the address {address}: {places}. {OWN_ADDRESS}")

    def _user(self, machine: _Machine) -> str | None:
        """Account for SSH that a file names."""
        entry = self._known.get(machine.name, {}).get("user") or machine.fields.get("user")
        if entry is None or entry.is_empty:
            return None
        if entry.text and ACCOUNT.fullmatch(entry.text) and not PLACEHOLDER.fullmatch(entry.text):
            return entry.text
        self._problem(entry, f"the user of {machine.name} is {entry.kind}. Write the account that SSH uses there.")
        return None

    def _controller(self, wanted: str, addresses: dict[str, Entry | None]) -> tuple[str, str | None]:
        """Name and address of the controller.

        Parameters:
            wanted: value of the option `controller`.
            addresses: addresses of the nodes by their names.
        """
        if not HOST.fullmatch(wanted) and address_problem(wanted):
            raise FileError(f"The option controller is '{wanted}'. Set it to the IP address or the name of a host.")
        if wanted in addresses:
            return wanted, None
        owners = {_normal(entry.text): name for name, entry in addresses.items() if entry}
        if owner := owners.get(_normal(wanted)):
            told = f"{owner} has the address of the controller, {wanted}"
            self._problem(
                addresses[owner], f"{told}. Correct it; or set controller to {owner} if they are one machine."
            )
        found = [] if self._by_name or _is_ip(wanted) else self._candidates(wanted, {})
        if not found:
            return wanted, None
        cause = address_problem(found[0].text)
        if not cause and (owner := owners.get(_normal(found[0].text))):
            cause = f"that is the address of {owner}"
        if cause:
            told = f"the address of the controller {wanted} is {found[0].kind}; {cause}"
            self._problem(found[0], f"{told}. Set the option controller to its own IP address.")
        return wanted, found[0].text


def address_problem(text: str | None) -> str | None:
    """Why a text cannot be the address of a host; None if it can.

    Parameters:
        text: an address as a file has it; None for a value that is no text.
    """
    if text is None:
        return "it must be an address in quotes"
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        labels = text.split(".")
        if not ADDRESS_NAME.fullmatch(text) or labels[-1].isdigit() or any(map(PLACEHOLDER.fullmatch, labels)):
            return "that is neither an IP address nor the name of a host"
        return None
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        return "that is not the address of a host"
    return None


def _is_ip(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _normal(address: str) -> str:
    """An address in one way of writing."""
    return str(ipaddress.ip_address(address)) if _is_ip(address) else address.lower()
