# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: write the configuration of an agent as YAML."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_config
short_description: Write the configuration of an agent as YAML
description:
  - The same as C(to_nice_yaml) with C(sort_keys=false), but many times as fast where PyYAML has its part in C. With one
    configuration per node, that is noticeable.
author: [SmolCluster contributors (@smolcluster)]
positional: comment
options:
  _input: {description: The configuration., type: dict, required: true}
  comment: {description: Comment above the configuration., type: str, default: ""}
"""
EXAMPLES = r"""
text: "{{ {'positions': {'filename': '/var/lib/promtail/positions.yaml'}} | smolcluster.logging.to_config }}"
"""
RETURN = r"""
_value: {description: Text of the configuration., type: str}
"""

import json
from typing import Any

import yaml

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def to_config(config: dict[str, Any], comment: str = "") -> str:
    """Write a configuration as YAML.

    Parameters:
        config: mappings, lists, strings, numbers and booleans.
        comment: text above them; each line begins with `# ` in the result.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    # By way of JSON: PyYAML does not know Ansible's own types of strings and mappings.
    plain = json.loads(json.dumps(config))
    return head + yaml.dump(plain, Dumper=DUMPER, indent=2, sort_keys=False, allow_unicode=True, width=120)


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"to_config": to_config}
