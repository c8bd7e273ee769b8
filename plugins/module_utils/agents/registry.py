# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agents that this collection can deploy, by name."""

from __future__ import annotations

from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Agent

AGENTS: dict[str, Agent] = {agent.NAME: agent for agent in (promtail,)}
