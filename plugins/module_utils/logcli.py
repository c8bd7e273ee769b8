# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program logcli, Loki's client in the terminal; see `archive.Program`."""

from __future__ import annotations

NAME = "logcli"
VERSION_OPTION = ("--version",)
START_HINT = "Set docker_loki_grafana_logcli_base_url to archives of your own for another system or architecture"
