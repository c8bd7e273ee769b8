"""The artifacts folder: release archives and images that the roles install from.

A file that is there already is used as it is. What is missing is taken from its official place where that can be
reached, else built from Go modules for the platform of the Docker engine. Grafana cannot be built from modules.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import yaml

from lab import engine, images
from lab.config import ARTIFACTS, STATE, VARIABLES
from lab.shell import LabError, run, step, warn

RELEASES = "https://github.com/grafana/loki/releases/download"
MODULES = Path(__file__).parent / "go"
MODULE = "github.com/grafana/loki/v3"

# The last release of Promtail with binaries, and the newest module version that still has its source.
PROMTAIL_OFFICIAL, PROMTAIL_MODULE = "3.6.11", "3.6.15"
LOKI = "3.7.8"
LOKI_IMAGE = f"grafana/loki:{LOKI}"
GRAFANA_REPOSITORY, GRAFANA_IMAGE = "grafana/grafana", "grafana/grafana:13.2.3"
TOOLS = ("logcli",)


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, target: Path) -> bool:
    """Fetch a file completely or not at all; false when the address cannot be reached or has no such file."""
    part = target.with_name(target.name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=20) as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        part.unlink(missing_ok=True)
        return False
    part.replace(target)
    return True


def official(name: str, folder: Path) -> bool:
    """Fetch a release archive and hold it against the release's own SHA256SUMS.

    Raises:
        LabError: the sum does not match.
    """
    version = folder.name
    try:
        with urllib.request.urlopen(f"{RELEASES}/{version}/SHA256SUMS", timeout=20) as answer:
            sums = dict(line.split()[::-1] for line in answer.read().decode().splitlines())
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if name not in sums or not download(f"{RELEASES}/{version}/{name}", folder / name):
        return False
    if sha256(folder / name) != sums[name]:
        (folder / name).unlink()
        raise LabError(f"{name} of {version}: the SHA-256 does not match the release's SHA256SUMS")
    return True


def build(package: str, version: str, module: str, platform: str, target: Path) -> None:
    """Build a program of Loki's module.

    Parameters:
        package: path inside the module, for example `cmd/loki`.
        version: what the program shall answer to `-version`.
        module: folder below lab/go with the go.mod to use.
        platform: `<GOOS>-<GOARCH>`.
        target: file to write.

    Raises:
        LabError: Go is missing or the build fails.
    """
    if not shutil.which("go"):
        raise LabError("Go (1.21 or newer) is needed to build what cannot be downloaded; install it and run this again")
    system, architecture = platform.split("-")
    env = os.environ | {"CGO_ENABLED": "0", "GOOS": system, "GOARCH": architecture, "GOFLAGS": "-mod=readonly"}
    flags = f"-s -w -X {MODULE}/pkg/util/build.Version={version}"
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", target, f"{MODULE}/{package}"]
    with step(f"Building {Path(package).name} {version} for {platform} from its Go module (minutes on a cold cache)"):
        run(command, cwd=MODULES / module, env=env, timeout=2700)


def archive(program: Path, target: Path) -> None:
    """Pack a program as a release does: one file, named like the archive, executable."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        entry = zipfile.ZipInfo(target.stem, (2020, 1, 1, 0, 0, 0))
        entry.external_attr = 0o100755 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        packed.writestr(entry, program.read_bytes())


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over the archives of a release folder, in the release's own form."""
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.zip"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


def release(program: str, package: str, versions: dict[str, str], platform: str) -> tuple[str, str]:
    """Provide the release archive of a program.

    Parameters:
        program: `promtail`, `logcli`, …
        package: its path inside the Go module.
        versions: `official` and `module`, the versions to look for and to build.
        platform: `<GOOS>-<GOARCH>`.

    Returns:
        The version that is there, and where it came from.
    """
    name = f"{program}-{platform}.zip"
    for version in dict.fromkeys(versions.values()):
        if (ARTIFACTS / "releases" / f"v{version}" / name).exists():
            return version, "found in the artifacts folder"
    folder = ARTIFACTS / "releases" / f"v{versions['official']}"
    if official(name, folder):
        write_sums(folder)
        return versions["official"], "official release"
    version = versions["module"]
    folder = ARTIFACTS / "releases" / f"v{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ARTIFACTS) as scratch:
        built = Path(scratch) / program
        build(package, version, "promtail" if program == "promtail" else "loki", platform, built)
        archive(built, Path(scratch) / name)
        (Path(scratch) / name).replace(folder / name)
    write_sums(folder)
    return version, f"built from Go module {MODULE}@v{version}"


def mac() -> dict:
    """Provide a substitute for the release archive for Macs: this machine's own program in an archive of that form.

    Returns:
        Variables of the role promtail for the simulated Mac.
    """
    variables = yaml.safe_load(VARIABLES.read_text())
    version = variables["promtail_version"]
    source = ARTIFACTS / "releases" / f"v{version}" / f"promtail-{engine.platform()}.zip"
    # Not into the artifacts folder: it is no program for a Mac.
    folder = STATE / "mac" / f"v{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as packed, tempfile.TemporaryDirectory() as scratch:
        program = Path(packed.extract(packed.namelist()[0], scratch))
        archive(program, folder / "promtail-darwin-arm64.zip")
    write_sums(folder)
    return {"promtail_base_url": f"file://{folder.parent}", "promtail_download_dir": str(STATE / "mac" / "downloads")}


def image_names(path: Path) -> list[str]:
    """Names of the images in a file made by `docker save`."""
    with tarfile.open(path) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))
    return [name for image in manifest for name in image["RepoTags"] or []]


def image_file(repository: str) -> tuple[Path, str] | None:
    """Find an image of a repository (`grafana/loki`) in the artifacts folder; returns the file and its full name."""
    for path in sorted((ARTIFACTS / "images").glob("*.tar")):
        for name in image_names(path):
            if name.rpartition(":")[0].removeprefix("docker.io/") == repository:
                return path, name
    return None


def save(image: str, target: Path) -> None:
    """Write an image of the engine to a file, completely or not at all."""
    part = target.with_name(target.name + ".part")
    run(["docker", "save", "--output", part, image])
    part.replace(target)


def loki_image(platform: str) -> tuple[Path, str, str]:
    """Provide Loki's image: file, name, and where it came from."""
    if found := image_file("grafana/loki"):
        return *found, "found in the artifacts folder"
    target = ARTIFACTS / "images" / f"loki-{LOKI}.tar"
    origin = "official image"
    if not images.pull(LOKI_IMAGE):
        origin = f"built from Go module {MODULE}@v{LOKI}"
        with tempfile.TemporaryDirectory(dir=ARTIFACTS) as scratch:
            build("cmd/loki", LOKI, "loki", platform, Path(scratch) / "loki")
            # The shape of the official image: the program, its data folder and nothing else, as user 10001.
            (Path(scratch) / "data").mkdir()
            (Path(scratch) / "Dockerfile").write_text(
                "FROM scratch\nCOPY loki /usr/bin/loki\nCOPY --chown=10001:10001 data /loki\nCOPY data /tmp\n"
                'USER 10001\nEXPOSE 3100\nENTRYPOINT ["/usr/bin/loki"]\n'
                'CMD ["-config.file=/etc/loki/local-config.yaml"]\n'
            )
            env = os.environ | ({} if shutil.which("docker-buildx") else {"DOCKER_BUILDKIT": "0"})
            run(["docker", "build", "--tag", LOKI_IMAGE, scratch], env=env)
    save(LOKI_IMAGE, target)
    return target, LOKI_IMAGE, origin


def grafana_image() -> tuple[Path, str, str] | None:
    """Provide Grafana's image (file, name, origin), or none where it can neither be found nor pulled."""
    if found := image_file(GRAFANA_REPOSITORY):
        return *found, "found in the artifacts folder"
    if not images.pull(GRAFANA_IMAGE):
        return None
    target = ARTIFACTS / "images" / f"{GRAFANA_IMAGE.rpartition('/')[2].replace(':', '-')}.tar"
    save(GRAFANA_IMAGE, target)
    return target, GRAFANA_IMAGE, "official image"


def ensure() -> dict:
    """Make sure that the folder holds what the lab deploys, and say where each artifact came from.

    Returns:
        Variables of the roles that make them install from the folder.
    """
    (ARTIFACTS / "images").mkdir(parents=True, exist_ok=True)
    engine.ensure()
    platform = engine.platform()
    promtail_versions = {"official": PROMTAIL_OFFICIAL, "module": PROMTAIL_MODULE}
    promtail, origin = release("promtail", "clients/cmd/promtail", promtail_versions, platform)
    print(f"Artifact promtail {promtail} {platform}: {origin}")
    for tool in TOOLS:
        version, origin = release(tool, f"cmd/{tool}", {"official": LOKI, "module": LOKI}, platform)
        print(f"Artifact {tool} {version} {platform}: {origin}")
    loki, loki_name, origin = loki_image(platform)
    print(f"Artifact {loki_name} (image): {origin}")
    variables = {
        "promtail_version": promtail,
        "promtail_base_url": f"file://{ARTIFACTS}/releases",
        "docker_loki_grafana_loki_image": loki_name,
        "docker_loki_grafana_loki_image_file": str(loki),
        "docker_loki_grafana_grafana_enabled": False,
        "docker_loki_grafana_grafana_image": GRAFANA_IMAGE,
        "docker_loki_grafana_grafana_image_file": "",
    }
    if grafana := grafana_image():
        path, name, origin = grafana
        print(f"Artifact {name} (image): {origin}")
        variables |= {
            "docker_loki_grafana_grafana_enabled": True,
            "docker_loki_grafana_grafana_image": name,
            "docker_loki_grafana_grafana_image_file": str(path),
        }
    else:
        warn(
            "Artifact grafana/grafana (image): not available here, so the lab runs without Grafana. "
            f"A `docker save` file in {ARTIFACTS / 'images'} is used when there is one."
        )
    return variables
