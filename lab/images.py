"""Images of the lab's hosts, made once and kept in the Docker engine under a name that holds their inputs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import engine
from lab.config import HOSTS, USER, Host
from lab.shell import LabError, lock, run, step

FOLDERS = {"mini": "image", "controller": "image", "mac": "darwin", "mac-controller": "darwin"}


def exists(image: str) -> bool:
    """Whether the engine has the image."""
    return run(["docker", "image", "inspect", image], check=False).returncode == 0


def pull(image: str) -> bool:
    """Try to pull an image; false when no registry can be reached or it is not there."""
    try:
        return run(["docker", "pull", "--quiet", image], check=False, timeout=600).returncode == 0
    except LabError:
        return False


def base(suite: str) -> str:
    """Name of Debian's base image of a suite: the official one, or one made of Debian's packages by mmdebstrap."""
    official, own = f"debian:{suite}", f"smolcluster-lab/debian:{suite}"
    for image in (official, own):
        if exists(image):
            return image
    if pull(official):
        return official
    if not shutil.which("mmdebstrap"):
        engine.apt_install("mmdebstrap", "debian-archive-keyring")
    with step(f"Making a base image of Debian {suite} by mmdebstrap, as no image registry answers"):
        make = ["mmdebstrap", "--quiet", "--variant=minbase", suite, "-"]
        with subprocess.Popen(make, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as tar:
            subprocess.run(["docker", "import", "-", own], stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
        if tar.returncode:
            run(["docker", "image", "rm", own])
            raise LabError(f"mmdebstrap failed for Debian {suite} ({tar.returncode})")
    return own


def of_host(role: str, suite: str) -> str:
    """Build what is missing of a host image.

    Parameters:
        role: target in the Dockerfile, `mini`, `controller`, `mac` or `mac-controller`.
        suite: Debian's code name.

    Returns:
        Name of the image; its tag holds a digest of the files that it is made of, so that a change makes a new one.
    """
    folder = Path(__file__).parent / FOLDERS[role]
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]
    image = f"smolcluster-lab/{role}:{suite}-{digest}"
    with lock("images"):
        if not exists(image):
            _build(image, role, suite, folder)
        # Under this name molecule's scenarios find it.
        run(["docker", "tag", image, f"smolcluster-lab/{role}:{suite}"])
    return image


def _build(image: str, role: str, suite: str, folder: Path) -> None:
    """Build a host image from its folder; see `of_host`."""
    start = base(suite)
    with step(f"Building the image of a {role} with Debian {suite}"):
        arguments = ["--build-arg", f"BASE={start}", "--build-arg", f"USER={USER}", "--target", role]
        # The classic builder is in every engine; BuildKit needs a plugin that Debian 12 does not have.
        env = os.environ | ({} if shutil.which("docker-buildx") else {"DOCKER_BUILDKIT": "0"})
        run(["docker", "build", "--tag", image, *arguments, folder], env=env, timeout=1800)


def all_hosts(hosts: Sequence[Host] = HOSTS) -> None:
    """Build what is missing of the hosts' images."""
    engine.ensure()
    for role, suite in dict.fromkeys((host.role, host.suite) for host in hosts):
        of_host(role, suite)
