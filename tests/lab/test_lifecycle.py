"""What happens to a running agent: upgrade, roll-back, bad programs, clean-up, adoption."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

from plugins.module_utils import layout
from tests.lab.harness import DUMMY, MINIS, Lab, release

PROGRAMS = sorted(layout.PROGRAM_FILES)
ONE = ("--tags", "promtail", "--limit", MINIS[0].name)


def test_upgrade_and_roll_back_by_the_link(lab: Lab, artifacts, tmp_path):
    mini, version = MINIS[0], artifacts["promtail_version"]
    archive = Path(artifacts["promtail_base_url"].removeprefix("file://")) / f"v{version}"
    with zipfile.ZipFile(next(archive.glob("promtail-*.zip"))) as packed:
        program = packed.read(packed.namelist()[0])
    # The same program under another number: an upgrade but for the program's own features.
    lab.deploy(*ONE, **release(tmp_path, "9.9.1", program))
    assert lab.on(mini, "readlink /opt/promtail/current") == "9.9.1"
    assert lab.on(mini, f"readlink /proc/{lab.agent_pid(mini)}/exe") == "/opt/promtail/9.9.1/promtail"
    shutil.rmtree(tmp_path)
    # Back without a download: there is nothing to download from.
    lab.deploy(*ONE, promtail_base_url="file:///nowhere")
    assert lab.on(mini, "readlink /opt/promtail/current") == version
    assert lab.on(mini, f"readlink /proc/{lab.agent_pid(mini)}/exe") == f"/opt/promtail/{version}/promtail"
    lab.on(mini, "rm -r /opt/promtail/9.9.1")


def test_agent_that_does_not_come_up_is_put_back(lab: Lab, tmp_path):
    mini = MINIS[0]
    read = "cat /etc/promtail/promtail.yml /etc/systemd/system/promtail.service; readlink /opt/promtail/current"
    before = lab.on(mini, read)
    variables = release(tmp_path, "9.9.2", DUMMY.encode()) | {"promtail_batch_wait": "70ms"}
    play = lab.play("site.yml", *ONE, **variables)
    assert play.code != 0
    assert "the agent that ran before runs again" in play.output
    assert "dummy program: cannot go on" in play.output
    assert lab.on(mini, read) == before
    assert lab.on(mini, "systemctl is-active promtail") == "active"
    assert lab.deploy(*ONE).changed() == 0
    assert lab.on(mini, "ls /opt/promtail").split() == [before.split()[-1], "current", *PROGRAMS]


def test_clean_positions_reads_all_again_without_visible_duplicates(lab: Lab):
    mini, mark = MINIS[0], f"clean-{time.time_ns()}"
    stamp = lab.on(mini, "date '+%Y-%m-%d %H:%M:%S'")
    lab.write(
        mini, "worker-rank0-clean.log", "".join(f"{stamp},{n:03d} | INFO | rank:0 | {mark}\n" for n in range(200))
    )
    query = f'{{node="{mini.name}"}} |= "{mark}"'
    assert len(lab.entries(query, 200)) == 200
    before = lab.agent_pid(mini)
    play = lab.play("site.yml", "--tags", "promtail_clean", "--limit", mini.name)
    assert play.code == 0, play.output
    assert "agent : Switch" not in play.output
    assert lab.agent_pid(mini) != before
    copy = "/run/promtail/files/smolcluster-worker"
    deadline = time.monotonic() + 15
    while int(lab.on(mini, f"grep -c '{mark}' {copy}", check=False) or 0) < 200:
        assert time.monotonic() < deadline, "the file was not read again"
    assert len(lab.entries(query, 200)) == 200


def test_set_up_by_hand_is_reported_and_on_request_retired(lab: Lab):
    mini, one = MINIS[2], ("--tags", "promtail", "--limit", MINIS[2].name)
    by_hand = "/opt/promtail/current/promtail -config.file=/tmp/by-hand.yml"
    lab.on(
        mini,
        "sed 's/9080/9081/; s#/run/promtail/positions.yaml#/tmp/positions.yaml#' /etc/promtail/promtail.yml "
        f"> /tmp/by-hand.yml; touch /tmp/positions.yaml; setsid {by_hand} >/dev/null 2>&1 &",
    )
    left = "pgrep --exact promtail | wc -l; ls /tmp/positions.yaml 2>/dev/null; true"
    play = lab.deploy(*one)
    assert f"{by_hand}, /tmp/positions.yaml" in " ".join(play.output.split())
    assert lab.on(mini, left).split() == ["2", "/tmp/positions.yaml"]
    lab.deploy(*one, promtail_adopt=True)
    assert lab.on(mini, left).split() == ["1"]
    assert lab.on(mini, "systemctl is-active promtail") == "active"
    assert by_hand not in lab.deploy(*one).output
