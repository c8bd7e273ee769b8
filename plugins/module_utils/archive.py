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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from ansible_collections.smolcluster.logging.plugins.module_utils import accounts
from ansible_collections.smolcluster.logging.plugins.module_utils.changes import open_regular
from ansible_collections.smolcluster.logging.plugins.module_utils.errors import DeploymentError
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import Run

MANIFEST = "manifest.json"


class Program(Protocol):
    """A program that is installed from a release archive: an agent, or logcli.

    Attributes:
        NAME: its name.
        VERSION_OPTION: options with which it prints its version.
        START_HINT: sentence with what to try when it does not start on a host.
    """

    NAME: str
    VERSION_OPTION: tuple[str, ...]
    START_HINT: str


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


def digests(paths: list[str]) -> dict[str, str]:
    """SHA-256 of regular files by path; those that are missing or unreadable are left out."""
    found = {}
    for path in paths:
        with suppress(OSError), open_regular(path, follow=False) as file:
            found[path] = digest_of(file)
    return found


def origin_of(home: Path, version: str, program: str) -> dict[str, str]:
    """Origin of an installed version.

    Parameters:
        home: folder with one folder per version.
        version: name of the version's folder.
        program: name of the program in it.

    Returns:
        `name` and `sha256` of the archive, or of the program from a package manager; empty when the version is not
        installed, or its program was changed since.
    """
    try:
        known = json.loads((home / version / MANIFEST).read_text())
        origin = {"name": str(known["name"]), "sha256": str(known["archive"])}
        return origin if digest(home / version / program) == known["program"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_installed(folder: Path, program: str) -> bool:
    """Whether a version is there; `origin_of` also checks that its program was not changed.

    Parameters:
        folder: folder of the version.
        program: name of the program in it.
    """
    return (folder / MANIFEST).is_file() and (folder / program).is_file()


def unpack(archive: Path, folder: Path, kind: Program, run: Run, sha256: str = "") -> Path:
    """Unpack the program of a release archive next to its final folder, and check that the program starts here.

    Parameters:
        archive: zip with one file.
        folder: final folder of the version; it is not changed.
        kind: the program.
        run: function that runs a command.
        sha256: digest that the archive must have; empty when none is known.

    Returns:
        Folder with the program and its manifest.

    Raises:
        DeploymentError: the archive is missing, has another digest or not exactly one file, or its program does not
            start here.
    """
    if not archive.is_file():
        raise DeploymentError(f"the release archive {archive} is not on this node. Run this again")
    found = digest(archive)
    if sha256 and found != sha256:
        raise DeploymentError(
            f"{archive} on this node is not the archive that was verified: its SHA-256 is {found}, not {sha256}. "
            "Run this again. If that does not help, find out who else writes to that folder"
        )

    def extract(target: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as packed:
                names = [entry for entry in packed.infolist() if not entry.is_dir()]
                if len(names) != 1:
                    raise DeploymentError(f"{archive.name} contains {len(names)} files; a release archive contains one")
                with packed.open(names[0]) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
        except zipfile.BadZipFile as error:
            raise DeploymentError(f"{archive.name} is not a zip archive: {error}") from error

    manifest = {"name": archive.name, "archive": found}
    return prepare(folder, extract, f"the program in {archive.name}", manifest, kind, run)


def copy_of(program: str, owner: tuple[int, int], folder: Path, kind: Program, run: Run) -> Path:
    """Copy the program of a package manager next to its final folder, and check that it starts here.

    Parameters:
        program: path of the program.
        owner: see `opened_as`.
        folder: final folder of the version; it is not changed.
        kind: the program.
        run: function that runs a command.

    Returns:
        Folder with the program and its manifest.

    Raises:
        DeploymentError: the program cannot be read, or does not start on this node.
    """
    manifest = {"name": program}

    def copy(target: Path) -> None:
        with opened_as(program, owner) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        # The digest of the copy, because the package manager may replace its program at any time.
        manifest["archive"] = digest(target)

    return prepare(folder, copy, program, manifest, kind, run)


@contextmanager
def opened_as(program: str, owner: tuple[int, int]) -> Iterator[BinaryIO]:
    """Open a program in a folder of an ordinary account, with the rights of that account.

    The account can replace the program, for example by a link to a file of root or by a pipe. So only what the account
    itself can read is read, and only a regular file.

    Parameters:
        program: path of the program.
        owner: user and group ID of the account.

    Raises:
        DeploymentError: the account cannot read it, or it is not a regular file.
    """
    try:
        with accounts.acting_as(*owner):
            # Without O_NONBLOCK, opening a pipe would wait for a writer.
            number = os.open(program, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DeploymentError(
            f"the account that owns {program} cannot read it: {error.strerror}. Install it again"
        ) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DeploymentError(f"{program} is not a regular file. Install it again")
    with os.fdopen(number, "rb") as file:
        yield file


def prepare(
    folder: Path, fill: Callable[[Path], None], name: str, manifest: dict[str, str], kind: Program, run: Run
) -> Path:
    """Create the folder of a version under a temporary name.

    Parameters:
        folder: final folder of the version; it is not changed.
        fill: writes the program to a path.
        name: name of the program in messages.
        manifest: origin of the program; the digest of the program is added.
        kind: the program.
        run: function that runs a command.

    Returns:
        The temporary folder.

    Raises:
        DeploymentError: `fill` failed, or the program does not start on this node.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}.*"):  # from an interrupted run
        shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        program = partial / kind.NAME
        fill(program)
        program.chmod(0o755)
        try:
            code, out, err = run([str(program), *kind.VERSION_OPTION])
        except OSError as error:
            code, out, err = 126, "", str(error)
        if code:
            raise DeploymentError(
                f"{name} does not start on this node: {(err or out).strip()}. "
                f"Check that archive, system and architecture match. {kind.START_HINT}"
            )
        (partial / MANIFEST).write_text(json.dumps({**manifest, "program": digest(program)}) + "\n")
        partial.chmod(0o755)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return partial


def install(archive: Path, folder: Path, kind: Program, run: Run, sha256: str = "") -> None:
    """Make a version the only one, and remove its archive; see `unpack`.

    Raises:
        DeploymentError: see `unpack`. What was installed before is still there.
    """
    made = unpack(archive, folder, kind, run, sha256)
    if folder.exists():
        shutil.rmtree(folder)
    made.rename(folder)
    for other in folder.parent.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other)
    archive.unlink()
