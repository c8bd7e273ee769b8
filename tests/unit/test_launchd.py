"""What the modules read from a Mac's own programs; the words of launchctl and pmset are as others report them."""

from __future__ import annotations

import calendar
import os
import plistlib
import time
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.filter.to_plist import to_plist
from ansible_collections.smolcluster.logging.plugins.module_utils import docker
from ansible_collections.smolcluster.logging.plugins.module_utils.services import launchd
from ansible_collections.smolcluster.logging.plugins.module_utils.services.base import ServiceState
from ansible_collections.smolcluster.logging.plugins.module_utils.services.launchd import Launchd
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import darwin
from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks, macos_checks

PRINTED = """system/smolcluster.logging.promtail = {
	active count = 1
	path = /Library/LaunchDaemons/smolcluster.logging.promtail.plist
	type = LaunchDaemon
	state = running

	program = /usr/bin/python3
	arguments = {
		/usr/bin/python3
		/opt/promtail/positions.py
	}

	default environment = {
		PATH => /usr/bin:/bin:/usr/sbin:/sbin
	}

	environment = {
		SMOLCLUSTER_DEPLOYMENT => 4173e4630d92b73d
		XPC_SERVICE_NAME => smolcluster.logging.promtail
	}

	LWCR = {
		"reqs" => {
			"cdhash" => {
				"$in" => [
					0 = 				]
			}
		}
		"vers" => 1
	}

	domain = system
	exit timeout = 7
	runs = 3
	pid = 700
	last exit code = 78: EX_CONFIG

	spawn type = daemon (3)
	resource coalition = {
		ID = 1234
		state = active
		pid = 1
	}

	properties = keepalive | runatload
}
"""
MISSING = (113, "", 'Bad request.\nCould not find service "smolcluster.logging.promtail" in domain for system\n')


class Mac:
    """launchctl, by what it answers to each subcommand; the last answer is repeated."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "-"): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, words):
        assert words[0] == "/bin/launchctl"
        self.asked.append(" ".join(words[1:]))
        given = self.answers.get(words[1], [(0, "", "")])
        return given.pop(0) if len(given) > 1 else given[0]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time that passes by sleeping only."""
    now = [0.0]
    monkeypatch.setattr(launchd.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(launchd.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def job(mac: Mac, folder: Path) -> Launchd:
    """The agent's job."""
    return Launchd(mac, "smolcluster.logging.promtail", file=folder / "job.plist")


def test_fields_are_those_of_the_first_level():
    fields = launchd.parse(PRINTED)
    assert (fields["state"], fields["pid"], fields["runs"]) == ("running", "700", "3")
    assert fields["environment"]["SMOLCLUSTER_DEPLOYMENT"] == "4173e4630d92b73d"
    assert fields["last exit code"] == "78: EX_CONFIG"
    assert "ID" not in fields


def test_states(monkeypatch, tmp_path):
    monkeypatch.setattr(darwin, "descendants", lambda pid: [pid, 701] if pid else [])
    service = job(Mac(print=[(0, PRINTED, "")]), tmp_path)
    path = "/Library/LaunchDaemons/smolcluster.logging.promtail.plist"
    assert service.state() == ServiceState("running", 701, True, 2, path)
    assert service.environment()["SMOLCLUSTER_DEPLOYMENT"] == "4173e4630d92b73d"
    waiting = PRINTED.replace("\tpid = 700\n", "").replace("running", "spawn scheduled")
    assert job(Mac(print=[(0, waiting, "")]), tmp_path).state().active_state == "starting"
    assert job(Mac(print=[MISSING]), tmp_path).state().active_state == "absent"
    (tmp_path / "job.plist").touch()
    assert job(Mac(print=[MISSING]), tmp_path).state().active_state == "stopped"
    with pytest.raises(RuntimeError, match=r"launchctl print .*: Not privileged"):
        job(Mac(print=[(1, "", "Not privileged\n")]), tmp_path).state()


@pytest.mark.parametrize(
    ("said", "enabled"), [("disabled", False), ("true", False), ("enabled", True), ("false", True)]
)
def test_disabled_in_old_and_new_words(tmp_path, said, enabled):
    text = f'\tdisabled services = {{\n\t\t"smolcluster.logging.promtail" => {said}\n\t}}\n'
    assert job(Mac(print=[MISSING], print_disabled=[(0, text, "")]), tmp_path).state().enabled is enabled


def test_change_waits_until_the_old_job_is_gone_and_outlasts_error_5(tmp_path):
    gone = (0, PRINTED.replace("state = running", "state = SIGTERMed"), "")
    busy = (5, "", "Bootstrap failed: 5: Input/output error")
    mac = Mac(print=[gone, gone, gone, gone, MISSING], bootout=[(36, "", "")], bootstrap=[busy, busy, (0, "", "")])
    job(mac, tmp_path).restart()
    assert mac.asked.count("bootout system/smolcluster.logging.promtail") == 1
    assert mac.asked[-1].startswith("bootstrap system")
    assert len([words for words in mac.asked if words.startswith("bootstrap")]) == 3


def test_loaded_job_is_started_without_being_killed(tmp_path):
    mac = Mac(print=[(0, PRINTED, "")])
    job(mac, tmp_path).start()
    assert mac.asked[-1] == "kickstart system/smolcluster.logging.promtail"


def test_disabled_job_is_enabled_first(tmp_path):
    off = (0, '\t"smolcluster.logging.promtail" => disabled\n', "")
    mac = Mac(print=[MISSING], print_disabled=[off])
    job(mac, tmp_path).restart()
    assert mac.asked.index("enable system/smolcluster.logging.promtail") < len(mac.asked) - 1


def test_job_that_does_not_go_or_come_is_told_with_launchds_words(clock, tmp_path):
    stays = Mac(print=[(0, PRINTED, "")], bootout=[(5, "", "Boot-out failed: 5: Input/output error")])
    with pytest.raises(RuntimeError, match="it is still loaded; Boot-out failed: 5"):
        job(stays, tmp_path).stop(disable=False)
    assert 7 < clock[0] < 7 + 20
    never = Mac(print=[MISSING], bootstrap=[(122, "", "Bootstrap failed: 122: Path had bad ownership/permissions")])
    with pytest.raises(RuntimeError, match=r"bootstrap system .*: Bootstrap failed: 122"):
        job(never, tmp_path).start()


def test_job_that_is_loaded_already_from_its_file_is_good(tmp_path):
    loaded = PRINTED.replace("/Library/LaunchDaemons/smolcluster.logging.promtail.plist", str(tmp_path / "job.plist"))
    mac = Mac(print=[MISSING, (0, loaded, "")], bootstrap=[(37, "", "Operation already in progress")])
    job(mac, tmp_path).start()


def test_jobs_that_start_promtail_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(launchd, "DAEMONS", tmp_path / "daemons")
    monkeypatch.setattr(launchd, "AGENTS", tmp_path / "agents")
    monkeypatch.setattr(launchd, "HOMES", tmp_path / "Users")
    monkeypatch.setattr(launchd, "CONSOLE", str(tmp_path))
    agents = tmp_path / "Users/me/Library/LaunchAgents"
    for folder in (agents, tmp_path / "daemons"):
        folder.mkdir(parents=True)
    brew = {"Label": "homebrew.mxcl.promtail", "ProgramArguments": ["/opt/homebrew/opt/promtail/bin/promtail", "-x"]}
    shell = {"Label": "me.logs", "ProgramArguments": ["/bin/sh", "-c", "exec /usr/local/bin/promtail -config.file=a"]}
    other = {"Label": "me.other", "ProgramArguments": ["/usr/bin/true", "promtail.yml"]}
    for content in (brew, shell, other):
        (agents / f"{content['Label']}.plist").write_bytes(plistlib.dumps(content))
    odd = {"Label": 5, "ProgramArguments": ["/x/promtail", 5, True]}
    (agents / "odd.plist").write_bytes(plistlib.dumps(odd))
    damaged = {"text": "not a property list", "list": "<plist><array/></plist>", "ampersand": "<plist>a && b</plist>"}
    damaged["date"] = "<plist><dict><key>a</key><date>today</date></dict></plist>"
    for name, text in damaged.items():
        (agents / f"{name}.plist").write_text(text)
    mac = Mac(print=[MISSING])
    found = Launchd.services_of(mac, "promtail", [])
    assert [service.name for service in found] == ["homebrew.mxcl.promtail", "me.logs", "odd"]
    assert f"print user/{os.getuid()}/me.logs" in mac.asked
    found[0].retire()
    assert (agents / "homebrew.mxcl.promtail.plist.before-smolcluster").exists()
    assert [service.name for service in Launchd.services_of(mac, "promtail", [])] == ["me.logs", "odd"]


def test_own_words_by_age(tmp_path):
    log = tmp_path / "promtail.log"
    (tmp_path / "job.plist").write_bytes(plistlib.dumps({"StandardErrorPath": str(log)}))
    service = job(Mac(print=[MISSING]), tmp_path)
    assert service.journal() == ""
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    log.write_text(f"level=info ts=2026-01-01T00:00:00.1Z old\nlevel=warn ts={now}.5Z new\n  and its second line\n")
    assert service.journal(2).splitlines() == [f"level=warn ts={now}.5Z new", "  and its second line"]
    assert service.journal(50, 60).splitlines() == [f"level=warn ts={now}.5Z new", "  and its second line"]
    assert launchd.written("ts=2026-01-01T00:00:00.1Z") == calendar.timegm((2026, 1, 1, 0, 0, 0))
    assert service.log_command == f"sudo tail {log}"
    failed = PRINTED.replace("\tpid = 700\n", "")
    assert job(Mac(print=[(0, failed, "")]), tmp_path).journal(1).endswith("\nlaunchd: last exit code 78: EX_CONFIG")
    killed = failed.replace("last exit code = 78: EX_CONFIG", "last terminating signal = Killed: 9")
    said = job(Mac(print=[(0, killed, "")]), tmp_path).journal(1)
    assert said.endswith("\nlaunchd: last terminating signal Killed: 9")
    ended = failed.replace("= 78: EX_CONFIG", "= 0")
    assert "launchd:" not in job(Mac(print=[(0, ended, "")]), tmp_path).journal(1)


def answers(monkeypatch, **texts):
    """Give the programs of a Mac fixed answers, by their names."""
    monkeypatch.setattr(darwin, "output", lambda *words: texts.get(os.path.basename(words[0]), ""))


@pytest.mark.parametrize(
    ("said", "age"), [("00:07", 7), ("01:02:03", 3723), ("   2-00:00:01", 172801), ("", None), ("ELAPSED", None)]
)
def test_age(monkeypatch, said, age):
    answers(monkeypatch, ps=said + "\n")
    assert darwin.age(7) == age


def test_processes(monkeypatch):
    answers(monkeypatch, ps="    1     0\n  700     1\n  701   700\n  702   701\n  900     1\n")
    assert darwin.descendants(700) == [700, 701, 702]
    assert darwin.descendants(5) == []
    answers(monkeypatch, ps="  701 /opt/promtail/current/promtail -config.file=/etc/promtail/promtail.yml\n    2 \n")
    assert darwin.command_lines() == {
        701: ["/opt/promtail/current/promtail", "-config.file=/etc/promtail/promtail.yml"]
    }


def test_ports_and_programs(monkeypatch):
    answers(monkeypatch, lsof="p701\nftxt\nn/opt/promtail/3.6.11/promtail\nftxt\nn/usr/lib/dyld\n", ps="promtail -x\n")
    assert darwin.executable(701) == "/opt/promtail/3.6.11/promtail"
    assert darwin.listener(9080) == {"pid": 701, "command": "promtail -x"}
    answers(monkeypatch)
    assert darwin.executable(701) is None
    assert darwin.listener(9080) is None


@pytest.mark.parametrize(
    ("line", "minutes"), [(" sleep                1 (sleep prevented by powerd)", 1), (" sleep   0", 0), ("", None)]
)
def test_sleep(monkeypatch, line, minutes):
    answers(monkeypatch, pmset=f"Currently in use:\n disksleep            10\n displaysleep  5\n{line}\n")
    assert darwin.sleep_minutes() == minutes


def test_property_list_is_one_and_bears_its_comment():
    text = to_plist({"Label": "a & b", "KeepAlive": True, "Umask": 63}, "made by us -- do not edit")
    assert plistlib.loads(text.encode()) == {"Label": "a & b", "KeepAlive": True, "Umask": 63}
    assert "<!-- made by us - - do not edit -->" in text


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/Users/me/Desktop/smolcluster/logging/cluster-logs/*.log", True),
        ("/Users/me/Documents", True),
        ("/System/Volumes/Data/Users/me/Downloads/x.log", True),
        ("/Users/me/Library/Mobile Documents/com~apple~CloudDocs/x.log", True),
        ("/tmp/../Users/me/desktop/*.log", True),
        ("/Users/me/smolcluster/logging/*.log", False),
        ("/Users/me/DesktopLogs/x.log", False),
        ("/tmp/Desktop/x.log", False),
    ],
)
def test_protected_folders(path, hidden):
    assert macos_checks.protected(path) is hidden


@pytest.mark.parametrize(
    ("path", "allowed", "words"),
    [
        ("/Volumes/ssd/logs/*.log", False, "macOS may hide /Volumes/ssd/logs/*.log from services"),
        ("/Volumes/ssd/logs/*.log", True, None),
        ("/private/tmp/logs/*.log", False, "macOS empties /tmp at each start"),
        ("/Users/Shared/logs/*.log", False, None),
    ],
)
def test_places_that_are_worth_a_note(path, allowed, words):
    settings = {"sources": [{"name": "t", "paths": [path]}], "adopt": False, "user": "root", "reads_all": True}
    node = {"foreign_agents": [], "foreign_positions": [], "macos": {"sleep": 0, "version": "15.6"}, "system": "Darwin"}
    node |= {"python_of_root": True, "loki": None, "folders": []}
    found = agent_checks.notes(settings | {"full_disk_access": allowed}, node)
    assert [note.startswith(words or "") for note in found] == [True] * (words is not None)


def test_errors_by_which_macos_means_something_else():
    assert darwin.hint("open /a.log: Operation not permitted") == (
        ". macOS may require Full Disk Access for this (docs/macos.md)"
    )
    assert "from the local network" in darwin.hint("dial tcp 10.10.0.4:3100: connect: no route to host")
    assert darwin.hint("connection refused") == ""


@pytest.mark.parametrize(
    ("chosen", "used"),
    [("unix:///var/run/docker.sock", "unix:///live"), ("unix:///orbstack", ""), ("unix:///live", "unix:///live")],
)
def test_engine_is_the_chosen_one_and_without_a_choice_one_that_answers(monkeypatch, chosen, used):
    def output(_, *words):
        if "context" in words:
            return chosen
        return "28.0" if os.environ["DOCKER_HOST"] == "unix:///live" else ""

    monkeypatch.setenv("DOCKER_HOST", "")
    monkeypatch.setattr(docker.host, "SYSTEM", "Darwin")
    monkeypatch.setattr(docker, "output", output)
    monkeypatch.setattr(docker, "docker_hosts", lambda: ["unix:///left-over", "unix:///live"])
    assert docker.engine_of(None, "docker") == ("28.0" if used else "")
    assert os.environ.get("DOCKER_HOST", "") == used
