# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible filter: write data as a property list."""

from __future__ import annotations

DOCUMENTATION = r"""
name: to_plist
short_description: Write data as a property list
description: Writes the XML form that launchd reads; keys are sorted.
author: [SmolCluster contributors (@smolcluster)]
positional: comment
options:
  _input: {description: The data., type: dict, required: true}
  comment: {description: Comment above the data., type: str, default: ""}
"""
EXAMPLES = r"""
text: "{{ {'Label': 'smolcluster.logging.promtail', 'KeepAlive': true} | smolcluster.logging.to_plist }}"
"""
RETURN = r"""
_value: {description: Text of the property list., type: str}
"""

import json
import plistlib
from typing import Any


def to_plist(data: dict[str, Any], comment: str = "") -> str:
    """Write data as a property list.

    Parameters:
        data: mappings, lists, strings, numbers and booleans.
        comment: text above the data.
    """
    # By way of JSON: plistlib does not know Ansible's own types of strings and mappings.
    text = plistlib.dumps(json.loads(json.dumps(data))).decode().rstrip()
    return text.replace("<plist ", f"<!-- {comment.replace('--', '- -')} -->\n<plist ", 1) if comment else text


class FilterModule:
    """Name of the filter."""

    def filters(self) -> dict:
        """Filters by name."""
        return {"to_plist": to_plist}
