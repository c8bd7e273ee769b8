"""What the modules do on a node: archives, units, processes, ports, Loki's answers."""

from __future__ import annotations

import json
import os
import plistlib
import socket
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import linux, promtail
from ansible_collections.smolcluster.logging.plugins.module_utils.files import Folder

PROGRAM = "#!/bin/sh\nexit 0\n"


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command as AnsibleModule.run_command does."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def archive(path: Path, **files: str) -> Path:
    """Make a zip of files."""
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path


def test_archive_is_unpacked_and_counts_as_installed_until_it_is_damaged(tmp_path):
    home = tmp_path / "opt"
    packed = archive(tmp_path / "promtail-linux-amd64.zip", **{"promtail-linux-amd64": PROGRAM})
    version = home / "3.6.11"
    for _ in range(2):
        folder = Folder(version, promtail.unpack(packed, version, run))
        assert folder.needed()
        folder.apply()
        folder.commit()
        assert promtail.origin_of(home, "3.6.11")["sha256"] == promtail.digest(packed)
        (version / "promtail").write_text("damaged")
        assert promtail.origin_of(home, "3.6.11") == {}
    assert sorted(path.name for path in home.iterdir()) == ["3.6.11"]


def test_unpacked_version_gives_way_to_the_one_before_it(tmp_path):
    version = tmp_path / "3.6.11"
    old, new = (archive(tmp_path / f"{name}.zip", promtail=f"{PROGRAM}# {name}\n") for name in ("old", "new"))
    Folder(version, promtail.unpack(old, version, run)).apply()
    folder = Folder(version, promtail.unpack(new, version, run))
    folder.apply()
    assert promtail.origin_of(tmp_path, "3.6.11")["sha256"] == promtail.digest(new)
    folder.rollback()
    assert promtail.origin_of(tmp_path, "3.6.11")["sha256"] == promtail.digest(old)
    Folder(version, promtail.unpack(new, version, run)).rollback()  # it was never moved into place
    assert promtail.origin_of(tmp_path, "3.6.11")["sha256"] == promtail.digest(old)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["3.6.11"]


def test_archive_with_another_digest_than_expected_is_not_unpacked(tmp_path):
    packed = archive(tmp_path / "promtail-linux-amd64.zip", promtail=PROGRAM)
    with pytest.raises(promtail.PromtailError, match="is not the archive that was verified: its SHA-256 is"):
        promtail.unpack(packed, tmp_path / "opt/3.6.11", run, "0" * 64)
    assert not (tmp_path / "opt").exists()
    made = promtail.unpack(packed, tmp_path / "opt/3.6.11", run, promtail.digest(packed))
    Folder(tmp_path / "opt/3.6.11", made).apply()
    origin = {"name": "promtail-linux-amd64.zip", "sha256": promtail.digest(packed)}
    assert promtail.origin_of(tmp_path / "opt", "3.6.11") == origin


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")
def test_program_of_an_account_is_copied_with_no_more_rights_than_it_has(tmp_path):
    account, version = (65534, 65534), tmp_path / "opt/homebrew"
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        program, secret = Path(name) / "promtail", Path(name) / "secret"
        program.write_text(PROGRAM)
        Folder(version, promtail.copy_of(str(program), account, version, run)).apply()
        assert (version / "promtail").stat().st_uid == 0
        assert promtail.origin_of(version.parent, "homebrew") == {
            "name": str(program),
            "sha256": promtail.digest(program),
        }
        program.unlink()
        secret.touch(0o600)
        program.symlink_to(secret)
        with pytest.raises(promtail.PromtailError, match="cannot be read by the account that it belongs to"):
            promtail.copy_of(str(program), account, version, run)
        program.unlink()
        for kind in (stat.S_IFIFO, stat.S_IFCHR):
            os.mknod(program, kind | 0o644, os.makedev(1, 5))
            with pytest.raises(promtail.PromtailError, match="is no file; install it anew"):
                promtail.copy_of(str(program), account, version, run)
            program.unlink()
        program.symlink_to("/etc")
        with pytest.raises(promtail.PromtailError, match="is no file"):
            promtail.copy_of(str(program), account, version, run)
    assert [path.name for path in version.parent.iterdir()] == ["homebrew"]


def test_home_is_ours_by_its_mark(tmp_path):
    assert promtail.owner_of_home(tmp_path / "none") == "absent"
    (tmp_path / "promtail-linux-amd64.zip").touch()
    assert promtail.owner_of_home(tmp_path) == "absent"
    (tmp_path / "bin").mkdir()
    assert promtail.owner_of_home(tmp_path) == "foreign"
    (tmp_path / promtail.MARKER).touch()
    assert promtail.owner_of_home(tmp_path) == "ours"


def test_unit_of_somebody_else_is_found_where_the_system_has_it(tmp_path):
    ours, theirs = tmp_path / "ours.service", tmp_path / "theirs.service"
    theirs.write_text("[Service]\n")
    assert promtail.foreign_unit(ours, "") is None
    assert promtail.foreign_unit(ours, str(theirs)) == str(theirs)
    ours.write_text(f"# {promtail.MARK}\n[Service]\n")
    assert promtail.foreign_unit(ours, str(ours)) is None
    assert promtail.foreign_unit(theirs, str(theirs)) == str(theirs)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"promtail": "#!/bin/sh\necho no such library >&2; exit 1\n"}, "does not start on this node: no such library"),
        ({"a": "", "b": ""}, "holds 2 files"),
        ({"promtail": "\x7fELF of another machine"}, "does not start on this node"),
    ],
)
def test_bad_archive_leaves_nothing(tmp_path, files, words):
    packed = archive(tmp_path / "promtail.zip", **files)
    with pytest.raises(promtail.PromtailError, match=words):
        promtail.unpack(packed, tmp_path / "opt" / "3.6.11", run)
    assert list((tmp_path / "opt").iterdir()) == []


def test_damaged_archive_is_told(tmp_path):
    (tmp_path / "promtail.zip").write_text("no zip")
    with pytest.raises(promtail.PromtailError, match="is no zip archive"):
        promtail.unpack(tmp_path / "promtail.zip", tmp_path / "opt" / "3.6.11", run)
    with pytest.raises(promtail.PromtailError, match="is not on this node"):
        promtail.unpack(tmp_path / "other.zip", tmp_path / "opt" / "3.6.11", run)


def test_every_scrape_config_is_checked_alone_and_positions_are_spared(tmp_path):
    seen = tmp_path / "seen"
    program = tmp_path / "promtail"
    # A stand-in for Promtail that keeps what it was given and refuses the source `bad`.
    program.write_text(
        f'#!/bin/sh\nfor word; do file=${{word#-config.file=}}; done\ncat "$file" >> {seen}; echo >> {seen}\n'
        '! grep -q \'"bad"\' "$file" || { echo "error: no such stage" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    config = {
        "positions": {"filename": "/var/lib/promtail/positions.yaml", "ignore_invalid_yaml": True},
        "scrape_configs": [{"job_name": "good"}, {"job_name": "bad"}],
    }
    with pytest.raises(promtail.PromtailError, match="refuses the source bad: error: no such stage"):
        promtail.check_config(program, config, run)
    given = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [[scrape["job_name"] for scrape in one["scrape_configs"]] for one in given] == [["good"], ["bad"]]
    assert all(one["positions"]["filename"] != "/var/lib/promtail/positions.yaml" for one in given)


def test_listener_is_found_with_its_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert linux.listener(port)["pid"] == os.getpid()
    assert linux.listener(port) is None


def test_own_process_is_seen_and_a_gone_one_is_not():
    assert os.getpid() in linux.command_lines()
    assert linux.environment(os.getpid())
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert linux.command_line(ended.pid) == []
    assert linux.environment(ended.pid) == {}
    assert linux.executable(ended.pid) is None


def test_property_list_of_ours_is_known_in_its_binary_form_too(tmp_path):
    unit = tmp_path / "job.plist"
    unit.write_bytes(plistlib.dumps({"Label": "a", "Note": promtail.MARK}, fmt=plistlib.FMT_BINARY))
    assert promtail.foreign_unit(unit, "") is None
    unit.write_bytes(plistlib.dumps({"Label": "a"}, fmt=plistlib.FMT_BINARY))
    assert promtail.foreign_unit(unit, "") == str(unit)
    unit.unlink()
    unit.mkdir()
    assert promtail.foreign_unit(unit, "") == str(unit)
