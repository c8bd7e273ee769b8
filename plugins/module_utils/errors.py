# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Errors that several modules raise."""

from __future__ import annotations


class DeploymentError(Exception):
    """A deployment cannot continue; the text says why, and the way out."""
