# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Errors that several parts raise."""

from __future__ import annotations


class DeploymentError(Exception):
    """Something that stops a deployment; the text says what, and the way out."""
