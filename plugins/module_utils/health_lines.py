# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Health lines of nodes (roles/agent/files/health.py) and of the controller: what tells them from lines of training."""

from __future__ import annotations

# Label `job` of every health line, and name of its source on a node.
JOB = "smolcluster-health"
