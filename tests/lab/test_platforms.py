"""Every platform gets its own archive, downloaded once. The archives of other platforms are dummies that never run."""

from __future__ import annotations

import functools
import http.server
import json
import threading

import pytest

from lab import artifacts
from tests.lab.harness import MINIS, Lab

# One of which the role knows no sum: then the mirror's own SHA256SUMS counts.
VERSION = "3.6.10"


class Counting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps the paths that were asked for."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path):
    """Address of a mirror with dummy archives, and the list of what is asked of it."""
    folder = tmp_path / f"v{VERSION}"
    folder.mkdir()
    for platform in ("linux-amd64", "linux-arm64", "linux-arm"):
        program = tmp_path / f"promtail-{platform}"
        program.write_text(f"dummy program of {platform}, never run\n")
        artifacts.archive(program, folder / f"promtail-{platform}.zip")
    artifacts.write_sums(folder)
    Counting.asked = []
    handler = functools.partial(Counting, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Counting.asked
        server.shutdown()


def test_archive_of_the_platform_is_downloaded_once_and_checked_on_the_node(lab: Lab, mirror, tmp_path):
    url, asked = mirror
    platforms = dict(zip(MINIS, ("linux-arm64", "linux-arm64", "linux-arm"), strict=True))
    hosts = {mini.name: {"promtail_platform": platform} for mini, platform in platforms.items()}
    (tmp_path / "platforms.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    pids = [lab.agent_pid(mini) for mini in MINIS]
    play = lab.play(
        "site.yml",
        "--tags",
        "promtail",
        "-i",
        str(tmp_path / "platforms.json"),
        promtail_version=VERSION,
        promtail_base_url=url,
        promtail_download_dir=f"{tmp_path}/kept",
    )
    assert play.code != 0
    for mini, platform in platforms.items():
        assert f"the program in promtail-{platform}.zip does not start on this node" in play.failure(mini.name)
    # Each once, though two nodes have the same one, and none that no node has.
    assert sorted(path for path in asked if path.endswith(".zip")) == [
        f"/v{VERSION}/promtail-linux-arm.zip",
        f"/v{VERSION}/promtail-linux-arm64.zip",
    ]
    assert [lab.agent_pid(mini) for mini in MINIS] == pids
    for mini in MINIS:
        assert lab.on(mini, f"ls -A /opt/promtail | grep -E 'zip|{VERSION}'; true") == ""


def test_damaged_archive_is_refused_by_its_sum(lab: Lab, mirror, tmp_path):
    url, _ = mirror
    sums = tmp_path / f"v{VERSION}" / "SHA256SUMS"
    sums.write_text("".join(f"{'0' * 64}  {line.split()[1]}\n" for line in sums.read_text().splitlines()))
    play = lab.play(
        "site.yml",
        "--tags",
        "promtail",
        promtail_version=VERSION,
        promtail_base_url=url,
        promtail_download_dir=f"{tmp_path}/kept",
    )
    assert play.code != 0
    assert "cannot be downloaded" in play.output
    assert "checksum" in play.output
    for mini in MINIS:
        assert lab.on(mini, f"ls -A /opt/promtail | grep -E 'zip|{VERSION}'; true") == ""
