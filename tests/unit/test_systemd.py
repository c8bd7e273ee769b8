"""What systemd says of a service: its slice, its drop-ins, the packages that own it, why it failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import agent_log, packages
from ansible_collections.smolcluster.logging.plugins.module_utils.services import systemd
from ansible_collections.smolcluster.logging.plugins.module_utils.services.launchd import Launchd
from ansible_collections.smolcluster.logging.plugins.module_utils.services.systemd import Systemd
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux
from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks

# Control groups


@pytest.mark.parametrize(
    ("first", "group", "unit"),
    [
        ("/init.scope", "/system.slice/promtail.service", "promtail.service"),
        ("/init.scope", "/training.slice/training-gpu.slice/promtail.service", "promtail.service"),
        ("/init.scope", "/promtail.service", "promtail.service"),
        ("/init.scope", "/system.slice/promtail.service/payload", "promtail.service"),
        ("/init.scope", "/system.slice/system-promtail.slice/promtail@a.service", "promtail@a.service"),
        ("/docker/12/init.scope", "/docker/12/training.slice/promtail.service", "promtail.service"),
        # A user's own service of that name is not the system's.
        (
            "/init.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/promtail.service",
            "user@1000.service",
        ),
        ("/init.scope", "/user.slice/user-1000.slice/session-1.scope", None),
        ("/init.scope", "/system.slice/docker-12.scope/system.slice/promtail.service", None),
        ("/init.scope", "/", None),
        ("/docker/12/init.scope", "/docker/13/system.slice/promtail.service", None),
        ("/", "/system.slice/promtail.service", "promtail.service"),
    ],
)
@pytest.mark.parametrize("form", ["0::{}", "9:name=systemd:{}\n4:memory:/\n0::/elsewhere"])
def test_service_of_a_process_is_known_in_every_slice(monkeypatch, tmp_path, first, group, unit, form):
    for pid, path in ((1, first), (7, group)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(form.format(path) + "\n")
    monkeypatch.setattr(linux, "PROC", tmp_path)
    assert linux.unit_of(7) == unit
    assert linux.unit_of(8) is None


# Drop-ins


def service(said: str = "") -> Systemd:
    """The agent's service; `systemctl show` says this of `DropInPaths`."""
    return Systemd(lambda _: (0, f"DropInPaths={said}\n", ""), "promtail")


@pytest.fixture
def folders(monkeypatch, tmp_path) -> list[Path]:
    """Folders of units, first one first."""
    found = [tmp_path / name for name in ("etc", "run", "lib")]
    monkeypatch.setattr(systemd, "UNIT_FOLDERS", tuple(map(str, found)))
    return found


def write(folder: Path, name: str, text: str) -> Path:
    """Make a drop-in."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_settings_of_others_are_found_and_told_apart(folders):
    etc, run, lib = folders
    assert service().drop_ins() == []
    own = write(
        etc,
        "promtail.service.d/override.conf",
        "# a\n[Unit]\nConditionHost=a\n[Service]\nExecStart=\nExecStart=/x \\\n  -y=User=a\n; User=b\nUser = me\n"
        "MemoryMax=1G\nSlice=a.slice\nLogRateLimitBurst=5\n",
    )
    runtime = write(run, "promtail.service.d/50-MemoryMax.conf", "[Service]\nMemoryMax=1G\n")
    write(lib, "service.d/10-timeout-abort.conf", "[Service]\nTimeoutStopFailureMode=abort\nPrivateNetwork=no\n")
    everybody = write(lib, "service.d/20-limits.conf", "[Service]\nGroup=a\nPrivateTmp=yes\nIOWeight=5\nUMask=022\n")
    assert service().drop_ins() == [
        {
            "path": str(own),
            "breaking": ["ExecStart", "User"],
            "others": ["ConditionHost", "LogRateLimitBurst", "MemoryMax", "Slice"],
        },
        {"path": str(runtime), "breaking": [], "others": ["MemoryMax"]},
        {"path": str(everybody), "breaking": ["Group"], "others": ["IOWeight", "PrivateTmp"]},
    ]


def test_hidden_empty_and_strange_files_set_nothing(folders):
    etc, _, lib = folders
    for name in ("a", "b", "c"):
        write(lib, f"service.d/{name}.conf", "[Service]\nUser=me\n")
    write(etc, "promtail.service.d/a.conf", "")
    (etc / "promtail.service.d/b.conf").symlink_to("/dev/null")
    os.mkfifo(etc / "promtail.service.d/d.conf")
    (etc / "promtail.service.d/e.conf").mkdir()
    (etc / "promtail.service.d/f.conf").write_bytes(b"[Service]\n# caf\xe9\nNice=5\n")
    (etc / "promtail.service.d/g.txt").write_text("[Service]\nUser=me\n")
    found = {Path(file["path"]).name: file for file in service().drop_ins()}
    assert sorted(found) == ["c.conf", "f.conf"]
    assert found["f.conf"]["others"] == ["Nice"]


@pytest.mark.usefixtures("folders")
def test_what_only_systemd_knows_of_counts_and_what_is_gone_does_not(tmp_path):
    alias = write(tmp_path, "elsewhere/with space/x.conf", "[Service]\nUser=me\n")
    found = service(f'"{alias}" /gone/y.conf').drop_ins()
    assert [file["path"] for file in found] == [str(alias)]
    assert service("'unclosed").drop_ins() == []


@pytest.mark.parametrize(
    ("text", "breaking"),
    [
        ("Environment=GOMEMLIMIT=1GiB", False),
        ("Environment=", True),
        ("Environment=SMOLCLUSTER_DEPLOYMENT=1", True),
        ("ExecStartPre=/x", True),
        ("RootDirectory=/x", True),
        ("DynamicUser=yes", True),
        ("Restart=no", True),
        ("RestartSec=9", False),
        ("CPUQuota=5%", False),
    ],
)
def test_what_breaks_the_service_is_told_from_the_rest(folders, text, breaking):
    write(folders[0], "promtail.service.d/a.conf", f"[Service]\n{text}\n")
    (found,) = service().drop_ins()
    assert bool(found["breaking"]) is breaking
    assert bool(found["others"]) is not breaking


def test_launchd_has_no_drop_ins():
    assert Launchd.drop_ins() == []


SETTINGS = {"adopt": True, "user": "promtail", "reads_all": True}
NODE = {
    "foreign_agents": [],
    "foreign_positions": [],
    "macos": None,
    "loki": None,
    "python_of_root": True,
    "folders": [],
}


def test_drop_ins_are_refused_or_noted_with_the_way_out():
    path = "/etc/systemd/system/promtail.service.d/a.conf"
    node = NODE | {"drop_ins": [{"path": path, "breaking": ["ExecStart", "User"], "others": ["Slice"]}]}
    (problem,) = agent_checks.drop_in_problems(node)
    assert f"{path} sets ExecStart, User for the agent's service" in problem
    assert "Remove it; then run `systemctl daemon-reload`" in problem
    (note,) = agent_checks.notes(SETTINGS, node)
    assert f"{path} sets Slice for the agent's service" in note
    node["drop_ins"][0] |= {"path": "/usr/lib/systemd/system/service.d/b.conf", "others": []}
    (problem,) = agent_checks.drop_in_problems(node)
    assert "a link /etc/systemd/system/promtail.service.d/b.conf to /dev/null" in problem
    assert agent_checks.notes(SETTINGS, node) == []


# Packages


def programs(monkeypatch, tmp_path, **outputs: str):
    """Function that runs stand-ins of dpkg and rpm; and what they were asked."""
    asked = []
    for name in ("dpkg", "rpm"):
        program = tmp_path / name
        if name in outputs:
            program.touch()
            program.chmod(0o755)
        monkeypatch.setattr(packages, "DPKG" if name == "dpkg" else "RPM", str(program))

    def run(words):
        asked.append(words)
        out = outputs[Path(words[0]).name]
        return (0 if out else 1), out, "" if out else "no path found matching pattern"

    return run, asked


def test_packages_are_found_by_dpkg(monkeypatch, tmp_path):
    out = (
        "diversion by dash from: /etc/systemd/system/promtail.service\n"
        "promtail, promtail-extra:amd64: /etc/systemd/system/promtail.service\n"
        "other: /etc/systemd/system/promtail.service.d\n"
        "loki: /lib/systemd/system/promtail.service\n"
    )
    run, asked = programs(monkeypatch, tmp_path, dpkg=out)
    paths = ["/etc/systemd/system/promtail.service", "", "/usr/lib/systemd/system/promtail.service"]
    assert packages.owners(run, paths) == {
        "promtail": "apt-get remove promtail",
        "promtail-extra:amd64": "apt-get remove promtail-extra:amd64",
        "loki": "apt-get remove loki",
    }
    assert asked[0][3:] == [
        "/etc/systemd/system/promtail.service",
        "/lib/systemd/system/promtail.service",
        "/usr/lib/systemd/system/promtail.service",
    ]


def test_packages_are_found_by_rpm(monkeypatch, tmp_path):
    run, asked = programs(monkeypatch, tmp_path, rpm="promtail\n")
    unit = tmp_path / "promtail.service"
    unit.touch()
    assert packages.owners(run, [str(unit), "/not/there"]) == {"promtail": "rpm --erase promtail"}
    assert [words[-1] for words in asked] == [str(unit)]


def test_no_package_and_no_package_manager(monkeypatch, tmp_path):
    run, asked = programs(monkeypatch, tmp_path, dpkg="")
    assert packages.owners(run, ["/a*"]) == {}
    assert asked[0][-1] == r"/a\*"
    run, asked = programs(monkeypatch, tmp_path)
    monkeypatch.setattr(packages, "DPKG", "/nowhere")
    assert (packages.owners(run, ["/a"]), asked) == ({}, [])


def test_package_is_named_when_its_unit_is_in_the_way_and_at_adoption():
    node = NODE | {"packages": {"promtail": "apt-get remove promtail"}}
    (note,) = agent_checks.notes(SETTINGS, node)
    assert "the package promtail has a service with the same name" in note
    assert "`apt-get remove promtail` on this host, then run this again" in note


# Why it failed

GO = """level=info ts=2026-11-25T13:00:00Z caller=main.go:174 msg="Starting Promtail"
level=error ts=2026-11-25T13:00:00Z caller=x.go:1 msg="something smaller"
panic: label value "worker-caf\\xe9" is not valid UTF-8

goroutine 51 [running]:
github.com/grafana/loki/v3/clients/pkg/promtail/targets/file.(*FileTarget).sync(0xc0)
\t/src/loki/filetarget.go:220 +0x1b
panic({0x1, 0x2})
promtail.service: Main process exited, code=exited, status=2/INVALIDARGUMENT
promtail.service: Failed with result 'exit-code'.
promtail.service: Scheduled restart job, restart counter is at 3.
Started promtail.service - Promtail ships log files to Loki."""
PYTHON = """Traceback (most recent call last):
  File "/opt/promtail/positions.py", line 336, in <module>
    sys.exit(main())
re.error: unknown extension ?<n at position 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/promtail/positions.py", line 1, in <module>
json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)
promtail.service: Control process exited, code=exited, status=1/FAILURE
Failed to start promtail.service - Promtail ships log files to Loki."""
GROUP = """promtail.service: Failed to determine group credentials: No such process
promtail.service: Failed at step GROUP spawning /usr/bin/python3: No such process
promtail.service: Control process exited, code=exited, status=216/GROUP
promtail.service: Failed with result 'exit-code'."""


@pytest.mark.parametrize(
    ("log", "last"),
    [
        (GO, 'panic: label value "worker-caf\\xe9" is not valid UTF-8'),
        ("a\nfatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1:\nx", "fatal error: all goroutines"),
        (PYTHON, "json.decoder.JSONDecodeError: Expecting value"),
        ("Traceback (most recent call last):\n  x\nre.error: bad\npromtail.service: x", "re.error: bad"),
        (GROUP, "promtail.service: Control process exited, code=exited, status=216/GROUP"),
        ("level=error msg=a\nlevel=error msg=b\nlevel=info msg=c\nStopped x.", "level=error msg=b"),
        ('level=error msg=a\nlevel=error msg=x error="context canceled"\nb', "level=error msg=a"),
        ("promtail: error while loading shared libraries: libx.so\nb", "promtail: error while loading shared"),
        ("promtail: /lib/libc.so.6: version `GLIBC_2.34' not found (required by x)\nb", "promtail: /lib/libc.so.6"),
        ("Unable to parse config: a.yml: yaml: line 3\nFailed to start promtail.service.", "Unable to parse config"),
        ("said\npromtail.service: Main process exited, code=exited, status=3/X\nStopped x.", "said"),
        (
            "level=info msg=a\npromtail.service: Main process exited, code=killed, status=9/KILL\nStopped x.",
            "promtail.service: Main process exited, code=killed",
        ),
        ("x\npromtail.service: A process of this unit has been killed by the OOM killer.\ny", "promtail.service: A "),
        # Nothing says why: all is shown.
        ("level=info msg=a\nlevel=warn msg=b", "level=warn msg=b"),
    ],
)
def test_log_ends_with_the_line_that_says_why(log, last):
    assert agent_log.excerpt(log, Systemd.MANAGER_LINE).splitlines()[-1].startswith(last)


def test_log_of_launchd_ends_with_the_line_that_says_why():
    said = "level=info msg=a\nlaunchd: last exit code 78: EX_CONFIG"
    assert agent_log.excerpt(said, Launchd.MANAGER_LINE) == said


def test_excerpt_of_a_long_log_is_short():
    stack = "\n".join(f"frame {number}" for number in range(400))
    lines = agent_log.excerpt(f"{stack}\npanic: a\n{stack}", Systemd.MANAGER_LINE).splitlines()
    assert (len(lines), lines[-1]) == (15, "panic: a")
    assert agent_log.excerpt("", Systemd.MANAGER_LINE) == ""
