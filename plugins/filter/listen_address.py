# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: split an address to listen on into what Docker needs and what a URL needs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: listen_address
short_description: Split an address to listen on into what Docker needs and what a URL needs
description: Returns the addresses that Docker publishes a port on, and the host part of a URL for the host itself.
author: [SmolCluster contributors (@smolcluster)]
options:
  _input:
    description: An IPv4 or IPv6 address, the latter with or without brackets, or C(localhost).
    type: str
    required: true
"""
EXAMPLES = r"""
url: "http://{{ ('[::1]' | smolcluster.logging.listen_address).url }}:3100"
"""
RETURN = r"""
_value:
  description: C(bind), the addresses for Docker, and C(url), the host part of a URL; both are empty for an invalid one.
  type: dict
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import controller


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"listen_address": controller.listen_address}
