# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Versions as numbers."""

from __future__ import annotations

import re


def numbers(version: str) -> tuple[int, ...]:
    """Version as numbers, for comparison; empty when the text is not a version."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+(\.\d+)+", version) else ()
