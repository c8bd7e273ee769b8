"""Where the lab keeps its things, and which hosts it has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smolcluster-logging"
ARTIFACTS = Path(os.environ.get("LAB_ARTIFACTS") or CACHE / "artifacts")
# Variables that make the roles install from the artifacts folder; inventory/lab/group_vars reads them there.
VARIABLES = ARTIFACTS / "vars.yml"

# Labs with different numbers are up at the same time and share nothing but the artifacts and the images.
NUMBER = os.environ.get("LAB_NUMBER") or "1"
if NUMBER not in map(str, range(1, 255)):
    raise SystemExit(f"LAB_NUMBER is '{NUMBER}'. Set it to a number from 1 to 254.")
SUFFIX = "" if NUMBER == "1" else NUMBER
# Key, known_hosts and ssh_config of the running lab.
STATE = Path(f"{os.environ.get('LAB_STATE') or CACHE / 'lab'}{SUFFIX}")
NETWORK = f"minilab{SUFFIX}"
# Loopback address that all ports of the lab are published on.
ADDRESS = f"127.0.0.{NUMBER}"
LOKI, GRAFANA = f"http://{ADDRESS}:3100", f"http://{ADDRESS}:3000"
USER = "smol"


@dataclass(frozen=True)
class Host:
    """One host of the lab.

    Parameters:
        name: inventory name; the container is `<NETWORK>-<name>`.
        role: `mini` or `controller` (build targets in lab/image/Dockerfile), or `mac` (lab/darwin/).
        suite: Debian's code name.
        zone: IANA name of the host's time zone.
        ssh_port: port on ADDRESS.
        ports: further ports published on that address, same number inside.
    """

    name: str
    role: str
    suite: str
    zone: str
    ssh_port: int
    ports: tuple[int, ...] = ()

    @property
    def container(self) -> str:
        """Name of the container."""
        return f"{NETWORK}-{self.name}"


HOSTS = (
    Host("controller", "controller", "trixie", "Etc/UTC", 42220, (3100, 3000)),
    Host("mini1", "mini", "trixie", "Asia/Kolkata", 42221),
    Host("mini2", "mini", "trixie", "America/New_York", 42222),
    Host("mini3", "mini", "bookworm", "Etc/UTC", 42223),
)
# A container that plays a Mac mini, by stand-ins for Apple's programs; `make lab MAC=1` adds it.
MAC = Host("mac1", "mac", "trixie", "America/Los_Angeles", 42224)
