# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: format of a log source's lines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_sample
short_description: Return the format of a log source's lines
description:
  - Returns the sample of the source's preset and the format of its time.
  - For a source without a preset it is only the message.
author: [SmolCluster contributors (@smolcluster)]
positional: formats
options:
  _input: {description: One of C(smolcluster_log_sources)., type: dict, required: true}
  formats: {description: Folders of format presets., type: list, elements: path, required: true}
"""
EXAMPLES = r"""
sample: "{{ source | smolcluster.logging.source_sample(['roles/agent/vars/formats']) }}"
"""
RETURN = r"""
_value:
  description: >-
    C(sample), the format of a line for Python's C(logging.Formatter), and C(time), the format of its time for
    C(strftime) (empty for Python's default).
  type: dict
"""

from typing import Any

from ansible_collections.smolcluster.logging.plugins.plugin_utils import presets, sources


def sample_of(source: dict[str, Any], formats: list[str]) -> dict[str, str]:
    """Format of a source's lines, see above."""
    preset = sources.preset_of(source, presets.load(*formats))
    return {"sample": preset.sample, "time": preset.sample_time} if preset else {"sample": "%(message)s", "time": ""}


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"source_sample": sample_of}
