"""The agent on macOS under launchd, on the simulated Mac: Apple's programs are stand-ins (lab/darwin/).

What passes here shows how the role acts by Apple's documentation; it shows nothing of a real Mac.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator

import pytest

from lab import hosts
from lab.config import MAC, STATE
from lab.shell import run, wait_for
from tests.lab.harness import CONTROLLER, DUMMY, LOGS, ROOT, Lab, Play, release
from tests.lab.test_refusals import refused

LABEL = "smolcluster.logging.promtail"
TARGET = f"system/{LABEL}"
PLIST = f"/Library/LaunchDaemons/{LABEL}.plist"
ONE = ("--tags", "promtail", "--limit", MAC.name)
AGENT = "/opt/promtail/current/promtail"
BREW_AGENT = "/Users/smol/Library/LaunchAgents/homebrew.mxcl.promtail.plist"
OWN_LOGS = "/var/log/smolcluster-logging"
TRACES = f"""
    ls -d /opt/promtail /etc/promtail /var/db/promtail {OWN_LOGS} {PLIST} /etc/newsyslog.d/*promtail* 2>/dev/null
    id _promtail 2>/dev/null; pgrep --exact promtail; pgrep --full '[p]ositions.py run'
    launchctl print {TARGET} 2>/dev/null; true
"""
# A program of a Mac with an Intel processor as far as its first bytes, which is all that a kernel looks at.
INTEL = bytes.fromhex("cffaedfe 07000001 03000000 02000000") + bytes(4096)


class Mac(Lab):
    """The simulated Mac."""

    def sh(self, script: str, check: bool = True) -> str:
        """Run a script as root on the Mac; returns what it printed."""
        return self.on(MAC, script, check=check)

    def job(self, field: str) -> str:
        """A field of the first level of what `launchctl print` says of the agent's job; empty without one."""
        lines = self.sh(f"launchctl print {TARGET}", check=False).splitlines()
        return next((line.split(" = ")[1] for line in lines if line.startswith(f"\t{field} = ")), "")

    def agent(self) -> str:
        """Process of Promtail itself; empty when it does not run."""
        return self.sh(f"pgrep --parent {self.job('pid') or 'none'} || true", check=False)

    def one(self, *words: str, **variables) -> Play:
        """Deploy to the Mac alone; must succeed."""
        return self.deploy(*ONE, *words, **variables)

    def refused(self, *words: str, **variables) -> None:
        """A deployment is refused with these words, and the agent runs on."""
        before = self.job("pid")
        refused(self.play("site.yml", *ONE, **variables), MAC.name, *words)
        assert self.job("pid") == before

    def delivers(self, mark: str) -> None:
        """A line that is written now is in Loki once, with its labels."""
        stamp = self.sh("date '+%Y-%m-%d %H:%M:%S'")
        self.write(MAC, "worker-rank3-mac1.log", f"{stamp},123 | INFO | rank:3 | {mark}\n")
        ((moment, line, labels),) = self.entries(f'{{node="mac1"}} |= "{mark}"', 1)
        assert line.endswith(f"| {mark}")
        assert abs(moment / 1e9 - time.time()) < 30
        assert labels["host"] == "worker-rank3-mac1"
        assert labels["rank"] == "3"
        assert labels["filename"] == f"{LOGS}/worker-rank3-mac1.log"


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[Mac]:  # noqa: ARG001
    """A Mac on which nothing was deployed."""
    hosts.remove(MAC)
    hosts.up(mac=True)
    yield Mac()
    hosts.remove(MAC)


@pytest.fixture(scope="module")
def mac(bare: Mac) -> Mac:
    """A Mac with the agent."""
    assert bare.one().changed() > 0
    return bare


@pytest.fixture(scope="module")
def program(lab: Lab) -> bytes:  # noqa: ARG001
    """Promtail for the container, which stands in for that of a Mac."""
    with zipfile.ZipFile(next((STATE / "mac").glob("v*/promtail-darwin-arm64.zip"))) as packed:
        return packed.read(packed.namelist()[0])


def settings(mac: Mac, **known) -> None:
    """Give the Mac other settings; none is as it came."""
    mac.sh("rm -f /var/macsim/settings.json")
    if known:
        mac.sh(f"printf %s {json.dumps(json.dumps(known))} > /var/macsim/settings.json")


def test_check_mode_on_a_fresh_mac_changes_nothing(bare: Mac):
    play = bare.one("--check", "--diff")
    assert play.changed() > 0
    assert f"+++ after: {PLIST}" in play.output
    assert bare.sh(TRACES) == ""


def test_first_deployment_ships_lines_and_the_second_changes_nothing(mac: Mac):
    mac.delivers(f"first-{time.time_ns()}")
    pid = mac.job("pid")
    assert mac.one().changed() == 0
    assert mac.one("--check", "--diff").changed() == 0
    assert mac.job("pid") == pid


def test_job_is_as_apple_wants_it(mac: Mac):
    assert mac.sh(f"plutil -lint {PLIST}") == f"{PLIST}: OK"
    assert mac.sh(f"stat -c '%U %g %a' {PLIST}") == "root 0 644"
    assert mac.job("state") == "running"
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe").startswith("/opt/promtail/3.")
    assert mac.sh(f"stat -c %a /var/db/promtail {OWN_LOGS}").split() == ["750", "750"]
    assert mac.sh("stat -c %a /etc/promtail/promtail.yml") == "640"


def test_change_of_the_configuration_restarts_the_agent(mac: Mac):
    pid = mac.job("pid")
    assert mac.one(promtail_batch_wait="60ms").changed() == 1
    assert mac.job("pid") != pid
    mac.delivers(f"changed-{time.time_ns()}")
    assert mac.one().changed() == 1


def test_verify_and_status_and_a_stopped_job_that_is_started_again(mac: Mac):
    assert mac.play("playbooks/verify.yml", "--limit", MAC.name).code == 0
    play = mac.play("playbooks/status.yml", "--limit", MAC.name, status_strict=True)
    assert play.code == 0, play.output
    mac.sh(f"launchctl bootout {TARGET}; true")
    play = mac.play("playbooks/status.yml", "--limit", MAC.name)
    assert f"it was stopped. `sudo launchctl bootstrap system {PLIST}` on the node starts it" in play.output
    play = mac.play("playbooks/verify.yml", "--limit", MAC.name)
    assert play.code != 0
    assert f"the agent does not run. `sudo tail {OWN_LOGS}/promtail.log` shows its log" in play.output
    assert mac.one().changed() == 1
    assert mac.job("state") == "running"


def test_disabled_or_still_stopping_job_is_started_again(mac: Mac):
    mac.sh(f"launchctl bootout {TARGET}; true")
    # It may not be gone yet: loading it now fails, which the deployment has to outlast.
    assert mac.one().changed() == 1
    assert mac.job("state") == "running"
    mac.sh(f"launchctl disable {TARGET}")
    assert "the service is not enabled" not in mac.one("--check").output
    mac.one()
    assert mac.sh("launchctl print-disabled system | grep promtail") == f'"{LABEL}" => enabled'
    mac.delivers(f"again-{time.time_ns()}")


def test_job_of_this_name_from_another_place_is_refused(mac: Mac):
    mac.sh(f"launchctl bootout {TARGET}; true")
    mac.sh(f"sed 's/Managed by smolcluster/Somebody else/' {PLIST} > /Library/other.plist && mv {PLIST} /Library/kept")
    wait_for(lambda: not mac.job("state"), "the job is gone", 20)
    mac.sh("launchctl bootstrap system /Library/other.plist")
    try:
        play = mac.play("site.yml", *ONE)
        refused(play, MAC.name, "/Library/other.plist exists already and was not created by this collection")
    finally:
        mac.sh(f"launchctl bootout {TARGET}; mv /Library/kept {PLIST}; rm /Library/other.plist")
        mac.one()


def test_upgrade_and_roll_back(mac: Mac, program, tmp_path):
    version = mac.sh("readlink /opt/promtail/current")
    mac.one(**release(tmp_path, "9.9.1", program, "darwin-arm64"))
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe") == "/opt/promtail/9.9.1/promtail"
    mac.one(promtail_base_url="file:///nowhere")
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe") == f"/opt/promtail/{version}/promtail"
    mac.sh("rm -r /opt/promtail/9.9.1")


def test_program_that_dies_at_once_is_put_back(mac: Mac, tmp_path):
    before = mac.sh(f"cat {PLIST} /etc/promtail/promtail.yml; readlink /opt/promtail/current")
    variables = release(tmp_path, "9.9.2", DUMMY.encode(), "darwin-arm64") | {"promtail_batch_wait": "70ms"}
    play = mac.play("site.yml", *ONE, **variables)
    assert play.code != 0
    assert "the agent fails right after its start; the agent that ran before runs again" in " ".join(
        play.output.split()
    )
    assert "dummy program: cannot go on" in play.output
    assert mac.sh(f"cat {PLIST} /etc/promtail/promtail.yml; readlink /opt/promtail/current") == before
    assert mac.one().changed() == 0
    mac.delivers(f"back-{time.time_ns()}")


def test_program_for_another_processor_is_refused(mac: Mac, tmp_path):
    pid = mac.job("pid")
    play = mac.play("site.yml", *ONE, **release(tmp_path, "9.9.3", INTEL, "darwin-arm64"))
    assert play.code != 0
    assert "the program in promtail-darwin-arm64.zip does not start on this node" in " ".join(play.output.split())
    assert mac.job("pid") == pid
    assert "9.9.3" not in mac.sh("ls -A /opt/promtail")


def test_killed_agent_is_back_and_loses_nothing(mac: Mac):
    mark, before = f"killed-{time.time_ns()}", mac.job("runs")
    stamp = mac.sh("date '+%Y-%m-%d %H:%M:%S'")
    lines = "".join(f"{stamp},{n:03d} | INFO | rank:3 | {mark} {n}\n" for n in range(300))
    mac.write(MAC, "worker-rank3-killed.log", lines[: len(lines) // 2])
    mac.sh(f"kill -9 {mac.agent()}")
    mac.write(MAC, "worker-rank3-killed.log", lines[len(lines) // 2 :])
    found = mac.entries(f'{{node="mac1"}} |= "{mark} "', 300)
    assert len(found) == len({line for _, line, _ in found}) == 300
    assert int(mac.job("runs")) == int(before) + 1
    mac.sh(f"kill -9 {mac.job('pid')}")
    wait_for(lambda: mac.job("state") == "running" and mac.agent(), "the job is back", 20)
    assert len(mac.sh(f"pgrep --full '^{AGENT}'").split()) == 1


def test_killed_job_makes_room_for_the_next_in_an_outage(mac: Mac):
    """launchd only asks the agent of a killed job to end, and in an outage Promtail takes long to do so."""
    mark, loki = f"orphan-{time.time_ns()}", "smolcluster-logging-loki-1"
    stamp = mac.sh("date '+%Y-%m-%d %H:%M:%S'")
    lines = "".join(f"{stamp},{n:03d} | INFO | rank:3 | {mark} {n}\n" for n in range(300))
    mac.on(CONTROLLER, f"docker stop {loki}")
    try:
        mac.write(MAC, "worker-rank3-orphan.log", lines)
        wait_for(lambda: "will retry" in mac.sh(f"tail -n 5 {OWN_LOGS}/promtail.log"), "the agent retries", 20)
        before, job = mac.agent(), mac.job("pid")
        mac.sh(f"kill -9 {job}")
        wait_for(lambda: mac.job("pid") not in ("", job) and mac.agent(), "the next agent runs", 20)
        assert mac.sh(f"pgrep --full '^{AGENT}'") == mac.agent() != before
    finally:
        mac.on(CONTROLLER, f"docker start {loki} && timeout 60 sh -c 'until curl -sf 127.0.0.1:3100/ready; do :; done'")
    found = mac.entries(f'{{node="mac1"}} |= "{mark} "', 300, timeout=60)
    assert len(found) == len({line for _, line, _ in found}) == 300


def test_run_that_was_cut_off_before_the_job_was_loaded_anew_is_completed(mac: Mac):
    """The file is as it should be, and launchd still has the job as it was before."""
    mac.sh(f"""
        sed 's/<string>[0-9a-f]\\{{16\\}}</<string>0000000000000000</' {PLIST} > /Library/new
        cat {PLIST} > /Library/kept
        launchctl bootout {TARGET}; cat /Library/new > {PLIST}
        timeout 20 sh -c 'until launchctl bootstrap system {PLIST}; do sleep 0.2; done'
        cat /Library/kept > {PLIST}; rm /Library/new /Library/kept
    """)
    assert "SMOLCLUSTER_DEPLOYMENT => 0000000000000000" in mac.sh(f"launchctl print {TARGET}")
    assert mac.one().changed() == 1
    assert "SMOLCLUSTER_DEPLOYMENT => 0000000000000000" not in mac.sh(f"launchctl print {TARGET}")


def test_outage_with_a_kill_and_a_deployment_in_it_loses_nothing(mac: Mac):
    mark, loki = f"outage-{time.time_ns()}", "smolcluster-logging-loki-1"
    stamp = mac.sh("date '+%Y-%m-%d %H:%M:%S'")
    lines = [f"{stamp},{n:03d} | INFO | rank:3 | {mark} {n}\n" for n in range(900)]
    mac.on(CONTROLLER, f"docker stop {loki}")
    try:
        mac.write(MAC, "worker-rank3-outage.log", "".join(lines[:300]))
        wait_for(
            lambda: "will retry" in mac.sh(f"tail -n 5 {OWN_LOGS}/promtail.log"),
            "the agent retries",
            20,
        )
        mac.sh(f"kill -9 {mac.agent()}")
        wait_for(mac.agent, "the agent is back", 20)
        mac.write(MAC, "worker-rank3-outage.log", "".join(lines[300:600]))
        assert mac.one(promtail_batch_wait="60ms").changed() == 1
        mac.write(MAC, "worker-rank3-outage.log", "".join(lines[600:]))
    finally:
        mac.on(CONTROLLER, f"docker start {loki} && timeout 60 sh -c 'until curl -sf 127.0.0.1:3100/ready; do :; done'")
    found = mac.entries(f'{{node="mac1"}} |= "{mark} "', 900, timeout=60)
    assert len(found) == len({line for _, line, _ in found}) == 900
    mac.one()


def test_own_log_is_rotated(mac: Mac):
    pid = mac.job("pid")
    mac.sh("newsyslog -F")
    wait_for(lambda: mac.job("state") == "running" and mac.job("pid") != pid and mac.agent(), "the job is back", 20)
    assert mac.sh(f"ls {OWN_LOGS}").split() == ["promtail.log", "promtail.log.0.gz"]
    wait_for(lambda: mac.sh(f"cat {OWN_LOGS}/promtail.log"), "the new log is written", 20)
    mac.delivers(f"rotated-{time.time_ns()}")


def test_reboot(mac: Mac):
    run(["docker", "restart", "--timeout=15", MAC.container])
    wait_for(lambda: mac.agent(), "the agent is back", 60)
    mac.delivers(f"rebooted-{time.time_ns()}")


def test_positions_are_forgotten_on_request(mac: Mac):
    pid = mac.job("pid")
    play = mac.play("site.yml", "--tags", "promtail_clean", "--limit", MAC.name)
    assert play.code == 0, play.output
    assert mac.job("pid") != pid
    mac.delivers(f"clean-{time.time_ns()}")


def by_hand(mac: Mac) -> None:
    """What SmolCluster's own set-up leaves: a job of Homebrew, a process by nohup, positions files."""
    config = "sed 's/9080/{port}/; s#/var/db/promtail/positions.yaml#/tmp/positions.yaml#' /etc/promtail/promtail.yml"
    mac.sh(f"""
        set -e
        {config.format(port=9081)} > /opt/homebrew/promtail-local-config.yaml
        {config.format(port=9082)} > /private/tmp/by-hand.yml
        install -d -o smol -g staff /Users/smol/Library /Users/smol/Library/LaunchAgents /opt/homebrew/opt/promtail/bin
        cp {AGENT} /opt/homebrew/opt/promtail/bin/promtail
        chmod a+r /opt/homebrew/*.yaml /private/tmp/by-hand.yml
        touch /tmp/positions.yaml /tmp/promtail-positions.yaml /var/macsim/gui/501
        chmod a+rw /tmp/*positions.yaml
    """)
    job = """<plist version="1.0"><dict><key>Label</key><string>homebrew.mxcl.promtail</string>
        <key>ProgramArguments</key><array><string>/opt/homebrew/opt/promtail/bin/promtail</string>
        <string>-config.file=/opt/homebrew/promtail-local-config.yaml</string></array>
        <key>KeepAlive</key><true/></dict></plist>"""
    mac.on(MAC, f"cat > {BREW_AGENT} && chown smol:staff {BREW_AGENT}", data=job)
    mac.sh(f"sudo -u smol launchctl bootstrap gui/501 {BREW_AGENT}")
    mac.sh(f"sudo -u smol sh -c 'nohup {AGENT} -config.file=/tmp/by-hand.yml >/dev/null 2>&1 &'")
    wait_for(lambda: len(mac.sh("pgrep --exact promtail").split()) == 3, "three agents run", 20)


def test_set_up_by_hand_is_reported_and_on_request_retired(mac: Mac):
    by_hand(mac)
    words = " ".join(mac.one().output.split())
    assert "left over from a manual setup: homebrew.mxcl.promtail" in words
    assert f"{AGENT} -config.file=/tmp/by-hand.yml, /tmp/positions.yaml, /tmp/promtail-positions.yaml" in words
    assert len(mac.sh("pgrep --exact promtail").split()) == 3
    assert mac.one(promtail_adopt=True).changed() == 1
    assert mac.sh("pgrep --exact promtail") == mac.agent()
    assert mac.sh("launchctl print gui/501/homebrew.mxcl.promtail", check=False) == ""
    assert mac.sh("ls /Users/smol/Library/LaunchAgents") == "homebrew.mxcl.promtail.plist.before-smolcluster"
    assert mac.sh("ls /tmp/*positions.yaml 2>/dev/null; true") == ""
    assert "manual setup" not in mac.one().output
    assert mac.sh("rm -r /opt/homebrew/opt /Users/smol/Library /opt/homebrew/*.yaml; ls /opt/homebrew") == "bin"


def test_homebrews_program_is_copied_and_brew_never_runs_as_root(mac: Mac):
    brew = {"promtail_install_method": "homebrew"}
    mac.refused("its formula was disabled on 2026-03-02", "promtail_install_method: archive", **brew)
    tap = "/opt/homebrew/Library/Taps/smol/homebrew-agents"
    mac.sh(f"mkdir -p {tap} && cp {AGENT} {tap}/promtail && chown -R smol /opt/homebrew")
    brew |= {"promtail_homebrew_tap": "smol/agents"}
    play = mac.play("site.yml", *ONE, **brew | {"promtail_homebrew_tap": "smol/other"})
    words = " ".join(play.output.split())
    assert "mac1: Homebrew cannot install smol/other/promtail: Error: No available formula" in words
    assert mac.one("--check", **brew).changed() == 2
    mac.one(**brew)
    keg, copy = "/opt/homebrew/opt/promtail/bin/promtail", "/opt/promtail/homebrew/promtail"
    # Homebrew's folder is an ordinary account's; root runs a file of its own.
    assert mac.sh(f"stat -c %U {keg} {copy}").split() == ["smol", "root"]
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe") == copy
    assert mac.one(**brew).changed() == 0
    mac.delivers(f"brewed-{time.time_ns()}")
    # An upgrade by Homebrew reaches the agent by the next run.
    mac.sh(f"echo >> {keg}")
    assert mac.one(**brew).changed() == 1
    assert mac.sh(f"cmp {keg} {copy} && echo same") == "same"
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe") == copy
    # What the account itself cannot read is not copied for it.
    pid = mac.job("pid")
    mac.sh(f"mv {keg} {keg}.kept && install -m 600 /dev/null /Library/secret && ln -s /Library/secret {keg}"
           f" && chown -h smol {keg}")  # fmt: skip
    play = mac.play("site.yml", *ONE, **brew)
    assert play.code != 0
    assert f"the account that owns {keg} cannot read it" in " ".join(play.output.split())
    assert mac.job("pid") == pid
    mac.sh(f"mv {keg}.kept {keg}; rm /Library/secret")
    mac.one()
    assert mac.sh(f"readlink /proc/{mac.agent()}/exe").startswith("/opt/promtail/3.")
    mac.sh("rm -r /opt/homebrew/opt /opt/homebrew/Library")


def test_what_is_in_the_way_is_told_and_the_agent_runs_on(mac: Mac):
    mac.sh("mv /opt/promtail/current /opt/kept && mkdir /opt/promtail/current")
    mac.refused("/opt/promtail/current exists but is not a link. Move it away")
    mac.sh("rmdir /opt/promtail/current && mv /opt/kept /opt/promtail/current")
    assert mac.one().changed() == 0


def test_files_of_ours_that_somebody_has_damaged_are_mended(mac: Mac):
    for path in ("/etc/promtail/promtail.yml", "/opt/promtail/positions.py"):
        mac.sh(f"printf '\\377\\376x' > {path}")
    mac.sh(f"python3 -c 'import plistlib; f = \"{PLIST}\"; d = plistlib.load(open(f, \"rb\")); "
           "plistlib.dump(d, open(f, \"wb\"), fmt=plistlib.FMT_BINARY)'")  # fmt: skip
    assert mac.sh(f"head -c 6 {PLIST}") == "bplist"
    assert mac.one().changed() == 1
    mac.delivers(f"fixed-{time.time_ns()}")


TRAPS = {
    "files-that-macos-hides": (
        {"promtail_sources": [{"name": "t", "paths": ["/Users/smol/Desktop/smolcluster/logging/*.log"],
                               "format": "smolcluster"}]},
        "macOS hides /Users/smol/Desktop/smolcluster/logging/*.log from every service",
        "promtail_full_disk_access",
    ),
    "the-same-files-twice": (
        {"promtail_sources": [{"name": "t", "paths": ["/tmp/a.log", "/private/tmp/a.log"], "format": "smolcluster"}]},
        "has the same files twice: /private/tmp/a.log",
        "Remove one",
    ),
    "mdns-name": (
        {"promtail_loki_url": "http://controller.local:3100"},
        "cannot resolve controller.local, the name of Loki's machine",
        "/etc/hosts",
    ),
    "tap": (
        {"promtail_install_method": "homebrew", "promtail_homebrew_tap": "foo; x"},
        "promtail_homebrew_tap is 'foo; x'",
        "user/repository",
    ),
    "port": ({"promtail_http_port": 70000}, "promtail_http_port is '70000'", "from 1 to 65535"),
    "number-for-a-name": ({"promtail_user": 501}, "there is no user '501'", "promtail_user"),
    "no-such-user": ({"promtail_user": "nobody_here"}, "there is no user 'nobody_here'", "promtail_user"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trapped(mac: Mac, tmp_path_factory) -> Play:
    """One run with all traps; the agent runs on."""
    archive = json.loads((STATE / "mac1.json").read_text())
    before = mac.job("pid")
    cases = {name: archive | case[0] for name, case in TRAPS.items()}
    play = mac.play_cases(tmp_path_factory.mktemp("traps"), MAC, cases)
    assert mac.job("pid") == before
    return play


@pytest.mark.parametrize("case", TRAPS)
def test_trap_is_told(trapped: Play, case):
    trapped.refused(case, *TRAPS[case][1:])


def test_quarantined_program_is_told(mac: Mac):
    program = f"/opt/promtail/{mac.sh('readlink /opt/promtail/current')}/promtail"
    mac.sh(f"xattr -w com.apple.quarantine '0081;0;Safari;' {program}")
    mac.refused(f"Gatekeeper blocks {program}", f"sudo xattr -d com.apple.quarantine {program}")
    mac.sh(f"xattr -d com.apple.quarantine {program}")
    assert mac.one().changed() == 0


def test_sleeping_mac_and_another_account_are_told(mac: Mac):
    settings(mac, sleep=10)
    play = mac.one("--check", promtail_user="_promtail")
    words = " ".join(play.output.split())
    assert "mac1: this Mac goes to sleep after 10 min" in words
    assert "the agent runs as _promtail" in words
    settings(mac, version="14.7")
    play = mac.one("--check", promtail_user="_promtail")
    assert "goes to sleep" not in play.output
    assert "Local Network Privacy" not in play.output
    settings(mac)


def test_account_that_cannot_read_the_log_files_is_told(mac: Mac):
    mac.sh("chmod 750 /Users/smol && install -d -o smol -g staff /Users/smol/smolcluster")
    source = {"name": "t", "paths": ["/Users/smol/smolcluster/logging/*.log"], "format": "smolcluster"}
    words = "the account _promtail cannot read /Users/smol/smolcluster", "Set promtail_user to the account that trains"
    mac.refused(*words, promtail_sources=[source], promtail_user="_promtail")
    assert mac.one("--check", promtail_sources=[source], promtail_user="smol").changed() > 0


def test_account_of_its_own(mac: Mac):
    mac.one(promtail_user="_promtail")
    assert mac.sh(f"stat -c %U /proc/{mac.agent()} /var/db/promtail").split() == ["_promtail"] * 2
    mac.delivers(f"account-{time.time_ns()}")
    assert mac.one(promtail_user="_promtail").changed() == 0
    mac.sh("newsyslog -F")
    assert mac.sh(f"stat -c %U {OWN_LOGS}/promtail.log") == "_promtail"
    wait_for(lambda: mac.agent(), "the agent is back", 20)


def test_checklist_of_the_docs(mac: Mac):  # noqa: ARG001
    command = [sys.executable, ROOT / "tools/mac_check.py", MAC.name, "--inventory", ROOT / "inventory/lab"]
    settings = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        command, cwd=ROOT, env=settings, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    report = ROOT / "mac-check-mac1.txt"
    text = report.read_text()
    report.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1] for line in text.splitlines()[1:]] == ["ok"] * 9 + ["not"], text
    assert "20/20" in text


def test_python_that_only_asks_for_the_developer_tools_is_explained(mac: Mac):
    stub = """#!/bin/sh
        echo "xcode-select: note: No developer tools were found, requesting install." >&2
        exit 1"""
    mac.on(MAC, "cat > /var/macsim/python3 && chmod a+x /var/macsim/python3", data=stub)
    play = mac.play("site.yml", *ONE, ansible_python_interpreter="/var/macsim/python3")
    assert play.code != 0
    words = " ".join(play.output.split())
    assert "mac1: Ansible cannot examine this node: xcode-select: note: No developer tools were found" in words
    assert "`xcode-select --install`" in words


def test_stand_ins_refuse_what_they_do_not_know(bare: Mac):
    for command in ("launchctl load /x.plist", "sw_vers -x", "dscl . -list /Computers", "plutil -p x", "pmset -b",
                    "xattr -c x", "newsyslog -n", "sudo -u smol /opt/homebrew/bin/brew list", "uname -a"):  # fmt: skip
        assert bare.sh(f"{command} 2>/dev/null; echo $?").endswith("64"), command


def test_uninstall_leaves_nothing_of_ours_and_everything_else(mac: Mac):
    mac.write(MAC, "worker-rank0-kept.log", "a line of training\n")
    mac.sh(f"touch /opt/promtail/somebodys {OWN_LOGS}/somebodys")
    mac.sh(f"mv {PLIST} /Library/kept; sed 's/Managed by smolcluster/Somebody else/' /Library/kept > {PLIST}")
    play = mac.play("playbooks/uninstall.yml", *ONE)
    assert play.code != 0
    assert play.changed() == 0
    assert f"mac1: {PLIST} was changed or replaced" in " ".join(play.output.split())
    assert mac.agent()
    # Now somebody has removed the job's file; it runs on.
    mac.sh(f"rm {PLIST} /Library/kept")
    settings(mac, accounts_locked=True)
    play = mac.play("playbooks/uninstall.yml", *ONE)
    words = " ".join(play.output.split())
    assert play.code != 0
    assert "mac1: everything is removed except the account _promtail" in words
    assert "allow full disk access for remote users" in words
    assert mac.sh("ls -A /opt/promtail; ls -A " + OWN_LOGS).split() == ["somebodys"] * 2
    mac.sh(f"rm -r /opt/promtail {OWN_LOGS}")
    assert mac.sh(TRACES).startswith("uid=")
    settings(mac)
    for number in range(2):
        play = mac.play("playbooks/uninstall.yml", *ONE)
        assert play.code == 0, play.output
        assert mac.sh(TRACES) == ""
        assert (play.changed() > 0) is (number == 0)
    assert mac.sh(f"cat {LOGS}/worker-rank0-kept.log") == "a line of training"


def test_homebrew_on_a_fresh_mac(mac: Mac, program):
    tap = "/opt/homebrew/Library/Taps/smol/homebrew-agents"
    mac.sh(f"mkdir -p {tap} && chown -R smol /opt/homebrew")
    with tempfile.NamedTemporaryFile() as file:
        file.write(program)
        file.flush()
        run(["docker", "cp", file.name, f"{MAC.container}:{tap}/promtail"])
    mac.sh(f"chmod 755 {tap}/promtail")
    brew = {"promtail_install_method": "homebrew", "promtail_homebrew_tap": "smol/agents"}
    mac.one(**brew)
    mac.delivers(f"fresh-brew-{time.time_ns()}")
    assert mac.one(**brew).changed() == 0
    assert mac.play("playbooks/uninstall.yml", *ONE).code == 0
    assert mac.sh(TRACES) == ""
    assert mac.sh("ls /opt/homebrew/opt/promtail/bin") == "promtail"
