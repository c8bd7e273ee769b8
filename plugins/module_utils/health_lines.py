# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The label by which health lines differ from lines of training.

Nodes write theirs in roles/agent/files/health.py, the controller in roles/docker_loki_grafana/files/loki_health.py.
"""

from __future__ import annotations

# Label `job` of every health line, and name of its source on a node.
JOB = "smolcluster-health"
