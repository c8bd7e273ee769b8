# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: format of a log source's lines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_sample
short_description: Return the format of a log source's lines
description: Returns the sample of the source's preset; only the message for a source without a preset.
author: [SmolCluster contributors (@smolcluster)]
positional: formats
options:
  _input: {description: One of C(smolcluster_log_sources)., type: dict, required: true}
  formats: {description: Folder of the format presets., type: path, required: true}
"""
EXAMPLES = r"""
sample: "{{ source | smolcluster.logging.source_sample('roles/agent/vars/formats') }}"
"""
RETURN = r"""
_value: {description: Format of a line for Python's C(logging.Formatter)., type: str}
"""

from ansible_collections.smolcluster.logging.plugins.plugin_utils import sources


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"source_sample": sources.sample_of}
