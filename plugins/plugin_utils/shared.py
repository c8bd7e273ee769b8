# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders that several nodes share, for example on NFS: which node ships their files, and where that is not set.

A source says it with the key `shared`: `by_name` (each node the files that carry its name), `{node: NAME}` (one node
all files), or `false` (the nodes have different files).
"""

from __future__ import annotations

from typing import Any

from ansible_collections.smolcluster.logging.plugins.module_utils import globs
from ansible_collections.smolcluster.logging.plugins.module_utils.shared_folders import PAGE, mounted
from ansible_collections.smolcluster.logging.plugins.plugin_utils.watcher import BY_NAME


def watched(sources: Any, node: str) -> list[dict[str, Any]]:
    """The sources as one node watches them: without paths where another node ships the files.

    Parameters:
        sources: log sources; what is no source is left out, because other checks name it.
        node: name of the node.
    """
    found = []
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict):
            shared = source.get("shared")
            other = isinstance(shared, dict) and shared.get("node") != node
            found.append(source | {"paths": []} if other else source)
    return found


def key_problems(source: dict[str, Any], hosts: list[str]) -> list[str]:
    """Problems of the key `shared` of a source.

    Parameters:
        source: the source.
        hosts: names of all hosts of the inventory.
    """
    shared = source.get("shared", False)
    if shared is False or shared == BY_NAME:
        return []
    if not isinstance(shared, dict) or set(shared) != {"node"}:
        return [f"shared must be {BY_NAME}, {{node: NAME}} or false ({PAGE})"]
    if shared["node"] not in hosts:
        return [
            f"shared names the node {shared['node']}, which is not in the inventory, so nobody would ship the files"
        ]
    return []


def others(name: str, nodes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Facts of the other nodes, without further names of the same node.

    Parameters:
        name: name of the node.
        nodes: by name, what the modules agent_host_info or agent_info have found; empty without an answer.
    """
    mine = nodes.get(name) or {}
    return {
        other: facts
        for other, facts in nodes.items()
        if other != name and facts.get("machine") and facts["machine"] != mine.get("machine")
    }


def name_problems(sources: list[dict[str, Any]], name: str, nodes: dict[str, dict[str, Any]]) -> list[str]:
    """Sources with `shared: by_name` whose files could carry the names of two nodes.

    Parameters:
        sources: log sources.
        name: name of the node.
        nodes: see `others`.
    """
    named = [source["name"] for source in sources if source.get("shared") == BY_NAME]
    if not named:
        return []
    mine = globs.own_names(name, nodes[name]["hostname"])
    for other, facts in others(name, nodes).items():
        theirs = globs.own_names(other, facts["hostname"])
        for own in mine:
            if same := next((one for one in theirs if globs.carries(one, [own]) or globs.carries(own, [one])), None):
                return [
                    f"log source {', '.join(named)}: with shared: {BY_NAME} this node and {other} would ship the same "
                    f"files, because the names {own} and {same} cannot be distinguished. Rename one node, or set "
                    "shared: {node: NAME}"
                ]
    return []


def double(name: str, nodes: dict[str, dict[str, Any]]) -> list[str]:
    """Sources whose files other nodes ship as well.

    Parameters:
        name: name of the node.
        nodes: see `others`.
    """
    found = []
    for entry in (nodes.get(name) or {}).get("folders", []):
        if not entry["identity"] or entry["said"]:
            continue
        same = [
            other
            for other, facts in others(name, nodes).items()
            if any(one["identity"] == entry["identity"] and not one["said"] for one in facts.get("folders", []))
        ]
        if same:
            found.append(
                f"log source {entry['source']}: {entry['path']} is in a folder that this node shares with "
                f"{', '.join(same)}{mounted(entry)}, so every line arrives once for each of them. Set the key shared "
                f"of the source: {BY_NAME} if the names of the files have the names of the nodes, else "
                f"{{node: {name}}} ({PAGE})"
            )
    return found
