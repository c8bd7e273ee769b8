"""The Docker engine of the machine that runs the lab."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab.config import CACHE
from lab.shell import LabError, lock, run, step, wait_for


def answers() -> bool:
    """Whether an engine answers to this user."""
    try:
        return run(["docker", "info"], timeout=30, check=False).returncode == 0
    except LabError:
        return False


def platform() -> str:
    """Platform of the engine's containers, for example `linux-amd64`; Docker Desktop's is not the machine's own."""
    return run(["docker", "version", "--format", "{{.Server.Os}}-{{.Server.Arch}}"]).stdout.strip()


def apt_install(*packages: str) -> None:
    """Install Debian packages as root.

    Raises:
        LabError: no root or no apt; names the packages to install manually.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"missing: {', '.join(packages)}; install them, or run this as root on Debian or Ubuntu")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"Installing {', '.join(packages)}"):
        run(["apt-get", "update"], env=env)
        run(["apt-get", "install", "-y", "--no-install-recommends", *packages], env=env, timeout=1200)


def ensure() -> None:
    """Make sure that an engine answers; as root on Debian or Ubuntu install and start a missing one.

    Raises:
        LabError: none answers and none can be started; says what to do.
    """
    if answers():
        return
    with lock("engine"):
        if not answers():
            _start()


def _start() -> None:
    """Start an engine; see `ensure`."""
    if not shutil.which("dockerd") and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install("docker.io", "iptables")
    if not shutil.which("dockerd") or os.geteuid() != 0:
        reason = "is not installed" if not shutil.which("docker") else "does not answer to this user"
        raise LabError(
            f"A Docker engine is needed and {reason}. Start Docker Desktop, OrbStack or Colima, or on Linux install "
            "docker.io and join the group docker; `docker info` must succeed. As root on Debian or Ubuntu this is "
            "done for you."
        )
    with step("Starting the Docker engine"):
        if Path("/run/systemd/system").is_dir():
            run(["systemctl", "start", "docker"])
        else:
            CACHE.mkdir(parents=True, exist_ok=True)
            log = CACHE / "dockerd.log"
            with log.open("ab") as output:
                subprocess.Popen(
                    ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        wait_for(answers, "Docker engine answers (its log: see dockerd.log in the cache folder)", 60)
