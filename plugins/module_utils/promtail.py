# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Promtail on a node: its installed versions, its configuration check, and what a hand-made set-up left."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.smolcluster.logging.plugins.module_utils import accounts, host
from ansible_collections.smolcluster.logging.plugins.module_utils.files import folder_of_others, kind, read_regular
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked
from ansible_collections.smolcluster.logging.plugins.module_utils.service import Run

# Positions files of SmolCluster's own set-up (its logging/promtail-*-remote.yaml).
LEFTOVERS = ("/tmp/positions.yaml", "/tmp/promtail-positions.yaml")  # noqa: S108
# Files of packages with a service of the same name (grafana/loki, tools/nfpm.jsonnet; distributions).
PACKAGED = ("/usr/lib/systemd/system/promtail.service", "/etc/promtail/promtail.yml")
PROGRAM = "promtail"
MANIFEST = "manifest.json"
# By this file in the folder of the versions, and this line in the unit, uninstall knows what is ours.
MARKER = ".managed-by-smolcluster-logging"
MARK = "Managed by smolcluster.logging"


class PromtailError(Exception):
    """Something that stops a deployment; the text says what, and the way out."""


def digest_of(file: BinaryIO) -> str:
    """SHA-256 of an open file in hexadecimal."""
    checksum = hashlib.sha256()
    while block := file.read(1 << 20):
        checksum.update(block)
    return checksum.hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return digest_of(file)


def digest_of_texts(*texts: str) -> str:
    """Short digest of texts in their order, to tell one deployment from another."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def origin_of(home: Path, version: str) -> dict[str, str]:
    """What an installed version was made of.

    Parameters:
        home: folder with one folder a version.
        version: name of the version's folder.

    Returns:
        `name` and `sha256` of the archive, or of the program of a package manager; empty when the version is not
        installed, or its program is not what was installed.
    """
    try:
        known = json.loads((home / version / MANIFEST).read_text())
        origin = {"name": str(known["name"]), "sha256": str(known["archive"])}
        return origin if digest(home / version / PROGRAM) == known["program"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def unpack(archive: Path, folder: Path, run: Run, sha256: str = "") -> Path:
    """Unpack the one program of a release archive beside its place, and see whether that program starts here.

    Parameters:
        archive: zip with one file.
        folder: where the version belongs; it is not touched.
        run: function that runs a command.
        sha256: digest that the archive must have; empty where none is known.

    Returns:
        Folder with the program and its manifest.

    Raises:
        PromtailError: no such archive, another digest, not one file in it, or its program does not start on this node.
    """
    if not archive.is_file():
        raise PromtailError(f"{archive}: the release archive is not on this node")
    found = digest(archive)
    if sha256 and found != sha256:
        raise PromtailError(
            f"{archive} on this node is not the archive that was verified: its SHA-256 is {found}, not {sha256}. "
            "Run this again; if that does not help, look who else writes there"
        )

    def extract(program: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as packed:
                names = [entry for entry in packed.infolist() if not entry.is_dir()]
                if len(names) != 1:
                    raise PromtailError(f"{archive.name} holds {len(names)} files; a release archive holds one")
                with packed.open(names[0]) as source, program.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        except zipfile.BadZipFile as error:
            raise PromtailError(f"{archive.name} is no zip archive: {error}") from error

    return prepare(folder, extract, f"the program in {archive.name}", {"name": archive.name, "archive": found}, run)


def copy_of(program: str, owner: tuple[int, int], folder: Path, run: Run) -> Path:
    """Copy a package manager's program beside its place, and see whether it starts here.

    Parameters:
        program: the program.
        owner: see `opened_as`.
        folder: where the version belongs; it is not touched.
        run: function that runs a command.

    Returns:
        Folder with the program and its manifest.

    Raises:
        PromtailError: it cannot be read, or does not start on this node.
    """
    manifest = {"name": program}

    def copy(target: Path) -> None:
        with opened_as(program, owner) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        # What was copied counts: the package manager may replace its program at any time.
        manifest["archive"] = digest(target)

    return prepare(folder, copy, program, manifest, run)


@contextmanager
def opened_as(program: str, owner: tuple[int, int]) -> Iterator[BinaryIO]:
    """Open a program in a folder that belongs to an ordinary account, with that account's rights.

    The account can put anything in the program's place, a link to a file of root's or a pipe for example. So no more
    can be read than the account itself can read, and nothing but a file.

    Parameters:
        program: the program.
        owner: numbers of the account and its group.

    Raises:
        PromtailError: the account cannot read it, or it is no file.
    """
    try:
        with accounts.acting_as(*owner):
            # Opening a pipe would wait for somebody who writes.
            number = os.open(program, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise PromtailError(f"{program} cannot be read by the account that it belongs to: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise PromtailError(f"{program} is no file; install it anew, or set promtail_install_method: archive")
    with os.fdopen(number, "rb") as file:
        yield file


def prepare(folder: Path, fill: Callable[[Path], None], name: str, manifest: dict[str, str], run: Run) -> Path:
    """Make a version's folder beside its place.

    Parameters:
        folder: where the version belongs; it is not touched.
        fill: writes the program to a path.
        name: what the program is called in messages.
        manifest: what it is made of; the digest of the program is added.
        run: function that runs a command.

    Returns:
        The folder that was made.

    Raises:
        PromtailError: `fill` failed, or the program does not start on this node.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}.*"):  # of a run that was cut off
        shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        program = partial / PROGRAM
        fill(program)
        program.chmod(0o755)
        try:
            code, out, err = run([str(program), "-version"])
        except OSError as error:
            code, out, err = 126, "", str(error)
        if code:
            raise PromtailError(
                f"{name} does not start on this node: {(err or out).strip()}. "
                "Check that archive, system and architecture belong together; promtail_version 3.5.6 is the last for "
                "a C library older than glibc 2.34."
            )
        (partial / MANIFEST).write_text(json.dumps({**manifest, "program": digest(program)}) + "\n")
        partial.chmod(0o755)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return partial


def check_config(program: Path, config: dict, run: Run) -> None:
    """Hold a configuration against the program's own parser.

    A dry run builds every stage, but of the first scrape config only (Promtail 3.6, stdin_target_manager.go), and
    `-check-syntax` builds none; so each scrape config is put to it alone.

    Parameters:
        program: Promtail's binary.
        config: the configuration.
        run: function that runs a command.

    Raises:
        PromtailError: the program refuses it; holds its own words and the scrape config that they are about.
    """
    with tempfile.TemporaryDirectory(prefix="promtail-check-") as scratch:
        path = Path(scratch) / "promtail.yml"
        # The agent that runs meanwhile must keep its positions file to itself.
        alone = {**config, "positions": {**config["positions"], "filename": f"{scratch}/positions.yaml"}}
        for scrape in config["scrape_configs"]:
            # JSON is YAML, and a node's Python need not have a YAML library.
            path.write_text(json.dumps({**alone, "scrape_configs": [scrape]}, ensure_ascii=False), "utf-8")
            words = [str(program), "-stdin", "-dry-run", "-server.disable", f"-config.file={path}"]
            code, out, err = run(words)
            if code:
                said = [line for line in (err or out).splitlines() if line.strip()]
                raise PromtailError(
                    f"Promtail refuses the source {scrape['job_name']}: {said[-1] if said else f'exit code {code}'}. "
                    "Mend it in promtail_sources; nothing was changed, and an agent that ran runs on"
                )


def foreign_unit(path: Path, definition: str) -> str | None:
    """File of a unit of the service's name that this collection did not write; it writes regular files only.

    Parameters:
        path: where ours belongs.
        definition: where the service manager has the service from; empty when it knows none.
    """
    for candidate in filter(None, (str(path), definition)):
        try:
            # A property list need not be text.
            if MARK.encode() not in read_regular(candidate, follow=False):
                return candidate
        except FileNotFoundError:
            continue
        except OSError:  # a link, as of a masked unit, a folder, or something else that is none of ours
            return candidate
    return None


def owner_of_home(home: Path) -> str:
    """Whose the folder of the versions is: `ours`, `foreign` or `absent`; ours has our mark in it, and is root's."""
    if folder_of_others(home):
        return "foreign"
    if (home / MARKER).exists():
        return "ours"
    # An archive without the mark is what a run that was cut off has left.
    foreign = home.is_dir() and any(entry.suffix != ".zip" and entry.name != ".lock" for entry in home.iterdir())
    return "foreign" if foreign else "absent"


def account(name: str) -> str:
    """Whose a user is: `ours`, `foreign` or `absent`; ours has our mark as its comment."""
    try:
        return "ours" if pwd.getpwnam(name).pw_gecos == MARK else "foreign"
    except KeyError:
        return "absent"


@dataclass
class Stray:
    """A Promtail that is not ours.

    Parameters:
        pid: its process; 0 when it does not run.
        words: its command line without secrets, or the name of its service.
        service: the service that starts it; none for one that was started by hand.
    """

    pid: int
    words: str
    service: Any = None

    def shown(self) -> dict[str, object]:
        """For the results of a module."""
        return {"pid": self.pid, "command": self.words}


def strays(run: Run, service: Any) -> list[Stray]:
    """Promtails that run beside a service, and services that start one.

    Parameters:
        run: function that runs a command.
        service: our own service.
    """
    own = set(service.processes())
    pids = [pid for pid in host.processes_of(PROGRAM) if pid not in own]
    found, covered = [], set()
    for other in host.manager.services_of(run, pids):
        if other.name != service.name:
            processes = set(other.processes())
            covered |= processes
            found.append(Stray(next((pid for pid in pids if pid in processes), 0), masked([other.name]), other))
    return found + [Stray(pid, masked(host.own.command_line(pid))) for pid in pids if pid not in covered]


def leftovers() -> list[str]:
    """Positions files of a hand-made set-up that are still there. Anybody can make other things of these names."""
    return [path for path in LEFTOVERS if kind(Path(path)) == "file"]
