# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Installed versions of a program: unpacked from a release archive, or copied from a package manager."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ansible_collections.smolcluster.logging.plugins.module_utils import accounts
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.base import Agent
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run

MANIFEST = "manifest.json"


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


def origin_of(home: Path, version: str, program: str) -> dict[str, str]:
    """What an installed version was made of.

    Parameters:
        home: folder with one folder a version.
        version: name of the version's folder.
        program: name of the program in it.

    Returns:
        `name` and `sha256` of the archive, or of the program of a package manager; empty when the version is not
        installed, or its program is not what was installed.
    """
    try:
        known = json.loads((home / version / MANIFEST).read_text())
        origin = {"name": str(known["name"]), "sha256": str(known["archive"])}
        return origin if digest(home / version / program) == known["program"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def unpack(archive: Path, folder: Path, agent: Agent, run: Run, sha256: str = "") -> Path:
    """Unpack the one program of a release archive beside its place, and see whether that program starts here.

    Parameters:
        archive: zip with one file.
        folder: where the version belongs; it is not touched.
        agent: whose program it is.
        run: function that runs a command.
        sha256: digest that the archive must have; empty where none is known.

    Returns:
        Folder with the program and its manifest.

    Raises:
        DeploymentError: no such archive, another digest, not one file in it, or its program does not start here.
    """
    if not archive.is_file():
        raise DeploymentError(f"{archive}: the release archive is not on this node")
    found = digest(archive)
    if sha256 and found != sha256:
        raise DeploymentError(
            f"{archive} on this node is not the archive that was verified: its SHA-256 is {found}, not {sha256}. "
            "Run this again; if that does not help, look who else writes there"
        )

    def extract(target: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as packed:
                names = [entry for entry in packed.infolist() if not entry.is_dir()]
                if len(names) != 1:
                    raise DeploymentError(f"{archive.name} holds {len(names)} files; a release archive holds one")
                with packed.open(names[0]) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        except zipfile.BadZipFile as error:
            raise DeploymentError(f"{archive.name} is no zip archive: {error}") from error

    manifest = {"name": archive.name, "archive": found}
    return prepare(folder, extract, f"the program in {archive.name}", manifest, agent, run)


def copy_of(program: str, owner: tuple[int, int], folder: Path, agent: Agent, run: Run) -> Path:
    """Copy a package manager's program beside its place, and see whether it starts here.

    Parameters:
        program: the program.
        owner: see `opened_as`.
        folder: where the version belongs; it is not touched.
        agent: whose program it is.
        run: function that runs a command.

    Returns:
        Folder with the program and its manifest.

    Raises:
        DeploymentError: it cannot be read, or does not start on this node.
    """
    manifest = {"name": program}

    def copy(target: Path) -> None:
        with opened_as(program, owner) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        # What was copied counts: the package manager may replace its program at any time.
        manifest["archive"] = digest(target)

    return prepare(folder, copy, program, manifest, agent, run)


@contextmanager
def opened_as(program: str, owner: tuple[int, int]) -> Iterator[BinaryIO]:
    """Open a program in a folder that belongs to an ordinary account, with that account's rights.

    The account can put anything in the program's place, a link to a file of root's or a pipe for example. So no more
    can be read than the account itself can read, and nothing but a file.

    Parameters:
        program: the program.
        owner: numbers of the account and its group.

    Raises:
        DeploymentError: the account cannot read it, or it is no file.
    """
    try:
        with accounts.acting_as(*owner):
            # Opening a pipe would wait for somebody who writes.
            number = os.open(program, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DeploymentError(
            f"{program} cannot be read by the account that it belongs to: {error.strerror}"
        ) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DeploymentError(f"{program} is no file; install it again")
    with os.fdopen(number, "rb") as file:
        yield file


def prepare(
    folder: Path, fill: Callable[[Path], None], name: str, manifest: dict[str, str], agent: Agent, run: Run
) -> Path:
    """Make a version's folder beside its place.

    Parameters:
        folder: where the version belongs; it is not touched.
        fill: writes the program to a path.
        name: what the program is called in messages.
        manifest: what it is made of; the digest of the program is added.
        agent: whose program it is.
        run: function that runs a command.

    Returns:
        The folder that was made.

    Raises:
        DeploymentError: `fill` failed, or the program does not start on this node.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}.*"):  # of a run that was cut off
        shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        program = partial / agent.NAME
        fill(program)
        program.chmod(0o755)
        try:
            code, out, err = run([str(program), *agent.VERSION_OPTION])
        except OSError as error:
            code, out, err = 126, "", str(error)
        if code:
            raise DeploymentError(
                f"{name} does not start on this node: {(err or out).strip()}. "
                f"Check that archive, system and architecture match; {agent.START_HINT}."
            )
        (partial / MANIFEST).write_text(json.dumps({**manifest, "program": digest(program)}) + "\n")
        partial.chmod(0o755)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return partial
