"""From a user's sources to Promtail's scrape configs, and what is refused before anybody looks at a node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import records
import yaml
from ansible_collections.smolcluster.logging.plugins.filter.promtail_scrape_configs import scrape_configs
from ansible_collections.smolcluster.logging.plugins.filter.watcher_settings import settings
from ansible_collections.smolcluster.logging.plugins.module_utils.agents.registry import AGENTS
from ansible_collections.smolcluster.logging.plugins.module_utils.layout import layout_of
from ansible_collections.smolcluster.logging.plugins.plugin_utils import agent_checks, presets, promtail_config, sources

ROOT = Path(__file__).resolve().parents[2]
FORMATS = [str(ROOT / "roles/agent/vars/formats"), ""]
SOURCE = {"name": "train", "paths": ["/srv/a-*.log", "/srv/b.log"], "format": "smolcluster", "labels": {"job": "train"}}
SETTINGS = {
    "name": "mini1",
    "nodes": {},
    "hosts": ["mini1", "mini2"],
    "sources": [SOURCE],
    "loki_url": "http://192.0.2.1:3100",
    "version": "3.6.11",
    "base_url": agent_checks.OFFICIAL,
    "timezone": "Local",
    "rank": "",
    "http_port": 9080,
    "memory_max": 256,
    "stop_timeout": 2,
    "batch_wait": "50ms",
    "adopt": False,
    "platform": "linux-amd64",
    "user": "promtail",
    "account": "promtail",
    "reads_all": True,
    "check_mode": False,
    "home": "/opt/promtail",
    "install_method": "archive",
    "homebrew_tap": "",
    "full_disk_access": False,
}
NODE = {
    "system": "Linux",
    "architecture": "x86_64",
    "glibc": "2.36",
    "managed": True,
    "folders": [],
    "archive": None,
    "home": "ours",
    "port_holder": None,
    "foreign_agents": [],
    "foreign_unit": None,
    "user": "ours",
    "foreign_positions": [],
    "macos": None,
    "loki": None,
    "uid": 990,
    "unreadable": [],
    "python": "/usr/bin/python3",
    "python_of_root": True,
    "python_usable": True,
}


def problems(node: dict | None = None, **settings) -> list[str]:
    """Problems of the good settings and node above with some of them changed."""
    return agent_checks.problems(SETTINGS | settings, FORMATS, NODE | (node or {}))


def test_good_settings_have_no_problem():
    assert problems() == []


COPIES = "/run/promtail/files"
LAYOUT = layout_of("promtail", "Linux").as_dict()


def configs(**source) -> list[dict]:
    """Scrape configs of the source above with some of it changed."""
    return scrape_configs([SOURCE | source], FORMATS, "mini1", "Asia/Kolkata", COPIES)


def test_a_source_becomes_one_scrape_config_that_reads_one_copy():
    (config,) = configs(paths=["/srv/a-*.log", "/srv/b.log"], name="a/b *")
    assert config["job_name"] == "a/b *"
    assert [target["labels"] for target in config["static_configs"]] == [
        {"job": "train", "node": "mini1", "__path__": f"{COPIES}/a%2Fb%20%2A"}
    ]
    stages = {next(iter(stage)): stage for stage in config["pipeline_stages"]}
    assert stages["timestamp"]["timestamp"]["location"] == "Asia/Kolkata"
    assert set(stages["labels"]["labels"]) == {"host", "level", "rank"}
    wrong = re.search(r'level!~"(.*)"\}', stages["match"]["match"]["selector"])[1]
    assert [bool(re.fullmatch(wrong, level)) for level in ("INFO", "info", "WARN")] == [True, False, False]


def test_record_is_taken_apart_before_all_other_stages():
    own = [{"multiline": {"firstline": "^x"}}, {"regex": {"expression": "(?P<level>x)"}}]
    for stages in (configs()[0]["pipeline_stages"], configs(format=own)[0]["pipeline_stages"]):
        assert [next(iter(stage)) for stage in stages[:4]] == ["regex", "output", "replace", "labels"]
    assert stages[4:] == own
    path, entry = "/srv/worker 1.log", b"a\tb\nc \x1e d\xff"
    record = records.record(path.encode(), entry).decode("latin-1").removesuffix("\n")
    match = re.match(stages[0]["regex"]["expression"], record)
    assert match["filename"] == path
    escape = re.compile(stages[2]["replace"]["expression"])
    entry_of_agent = escape.sub(lambda one: {"\x1en": "\n", "\x1ee": "\x1e"}[one[1]], match["entry"])
    assert entry_of_agent.encode("latin-1") == entry


@pytest.mark.parametrize(
    ("path", "host"), [("/srv/worker-1.log", "worker-1"), ("/a b/x", "x"), ("/srv/a.log.1", "a.log.1"), ("/x.log", "x")]
)
def test_host_comes_from_the_path_of_the_log(path, host):
    expression = configs()[0]["pipeline_stages"][0]["regex"]["expression"]
    match = re.match(expression, f"{path}\tx/y.log\tz")
    assert (match["filename"], match["host"], match["entry"]) == (path, host, "x/y.log\tz")


def test_promtail_joins_lines_where_python_cannot():
    by_watcher = configs(format=PRESET)[0]["pipeline_stages"]
    by_agent = configs(format=PRESET | {"entry_start": r"^\pL"})[0]["pipeline_stages"]
    names = [[next(iter(stage)) for stage in stages] for stages in (by_watcher, by_agent)]
    assert names[1] == [*names[0][:4], "decolorize", "replace", "multiline", *names[0][4:]]
    assert by_agent[6]["multiline"]["firstline"] == r"^\pL"


def told(**source) -> dict:
    """Settings of the watcher for the source above with some of it changed."""
    return settings([SOURCE | source], FORMATS, LAYOUT, 9080, 2, "mini1", "http://loki:3100")["sources"][0]


def test_watcher_is_told_whose_files_another_node_ships():
    assert told(paths=[])["paths"] == []
    assert told(shared="by_name")["own"] == "mini1"


@pytest.mark.parametrize(
    ("chosen", "line", "timed"),
    [
        ("smolcluster_v2", "2026-11-23 11:01:22  INFO      [gpt | edp | worker-1]  step", True),
        ("smolcluster_v2", "step 10", False),
        ("python", "2026-11-23 10:39:17,181 - train - INFO - step", True),
        ("python", "[default0]:2026-11-23 10:39:17,181 - train - INFO - step", True),
        ("python", "INFO:train:step", False),
        ("auto", "step 10", False),
    ],
)
def test_watcher_is_told_which_entries_have_a_time(chosen, line, timed):
    assert bool(re.search(told(format=chosen)["timed"], line, re.ASCII)) is timed


@pytest.mark.parametrize("chosen", ["plain", "json", "logfmt", [{"decolorize": None}]])
def test_watcher_is_not_told_of_times_that_nobody_is_sure_of(chosen):
    assert "timed" not in told(format=chosen)


def test_watcher_is_told_what_is_excluded_and_followed():
    found = told(exclude="/srv/*.gz", follow=["/mnt/logs"])
    assert (found["exclude"], found["follow"], found["paths"]) == ("/srv/*.gz", ["/mnt/logs"], SOURCE["paths"])
    assert set(told()) == {"name", "paths", "entry_start", "join", "timed"}
    assert set(told(format=PRESET | {"entry_start": r"^\pL"})) == {"name", "paths", "unknown_start"}


def test_watcher_is_told_how_to_make_health_lines():
    found = settings([SOURCE], FORMATS, LAYOUT, 9080, 2, "mini1", "http://user:pa@ss@loki:3100/x")["health"]
    assert found == {
        "agent": "promtail",
        "path": "/run/promtail/health.log",
        "metrics": AGENTS["promtail"].METRICS,
        "loki_url": "http://loki:3100/x",
    }


@pytest.mark.parametrize(
    ("stages", "start"),
    [
        ([], {}),
        ([{"multiline": {"firstline": "^[[:digit:]]+"}}], {"entry_start": "^[0-9]+"}),
        ([{"match": {"selector": "{}", "stages": [{"multiline": {"firstline": "^a"}}]}}], {"entry_start": "^a"}),
        ([{"multiline": {"firstline": "^\\pL"}}], {"unknown_start": True}),
        ([{"multiline": {"firstline": "^a"}}, {"multiline": {"firstline": "^b"}}], {"unknown_start": True}),
    ],
)
def test_watcher_is_told_where_an_entry_begins(stages, start):
    found = told(format=stages)
    assert {key: found[key] for key in ("entry_start", "unknown_start", "join") if key in found} == start


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"paths": ["/srv/[a.log"]}, "the pattern /srv/[a.log is not valid: a [ is not closed"),
        ({"paths": ["/srv/{a.log"]}, "a { is not closed"),
        ({"paths": ["/srv/a\\"]}, "it ends with a backslash"),
        ({"exclude": "/srv/[]"}, "is not valid"),
        ({"exclude": ["/srv/x"]}, "exclude must be one pattern"),
        ({"follow": "/mnt"}, "follow must be a list of absolute paths"),
        ({"follow": ["mnt"]}, "follow must be a list of absolute paths"),
        ({"name": ".."}, "the name must be a text of at most 200 characters"),
        ({"name": "smolcluster-health"}, "this name is used for the agents' own health lines"),
        ({"name": "x" * 201}, "the name must be a text of at most 200 characters"),
    ],
)
def test_what_the_watcher_cannot_use_is_refused(change, words):
    assert words in "\n".join(problems(sources=[SOURCE | change]))


def test_level_words_become_one_template():
    assert promtail_config.level_template({"WARN": "WARNING"}) == (
        '{{ $level := ToUpper .Value }}{{ if eq $level "WARN" }}WARNING{{ else }}{{ $level }}{{ end }}'
    )


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([], "smolcluster_log_sources is empty"),
        ("text", "smolcluster_log_sources is empty"),
        ([{"paths": ["/a"]}], "entry 1 has no name"),
        ([SOURCE, SOURCE], "the name is used twice"),
        ([SOURCE | {"path": "/a"}], "unknown key path; known are exclude, follow, format"),
        ([SOURCE | {"paths": []}], "list of absolute paths"),
        ([SOURCE | {"paths": ["a.log"]}], "list of absolute paths"),
        ([SOURCE | {"paths": "/a.log"}], "list of absolute paths"),
        ([SOURCE | {"format": "zzz"}], "unknown format zzz; presets are accelerate, auto"),
        ([SOURCE | {"format": "logurru"}], "unknown format logurru; did you mean loguru"),
        ([SOURCE | {"format": None}], "format must be one of accelerate, auto"),
        ([SOURCE | {"format": [{"regexp": {}}]}], "unknown stage {'regexp': {}}"),
        ([SOURCE | {"format": ["regex"]}], "unknown stage regex"),
        ([SOURCE | {"labels": {"my-job": "x"}}], "labels must be a mapping"),
    ],
)
def test_bad_sources_are_told(sources, words):
    assert words in "\n".join(problems(sources=sources))


@pytest.mark.parametrize("url", ["", "192.0.2.1:3100", "http://", "http://user:secret@loki:3100", "http://a b:3100"])
def test_unusable_address_of_loki_is_told(url):
    assert "no usable Loki address" in problems(loki_url=url)[0]


@pytest.mark.parametrize("url", ["http://loki:3100", "https://[2001:db8::1]:3100/", "http://controller.lan"])
def test_usable_address_of_loki(url):
    assert problems(loki_url=url) == []


def test_version_without_programs_is_told_only_for_the_official_place():
    assert "3.6.11 is the last release" in problems(version="3.7.3")[0]
    assert problems(version="3.7.3", base_url="https://mirror.example") == []
    assert "must be a version" in problems(version="latest")[0]


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("http_port", [0, 70000, "x", -1], [1, "9080"]),
        ("memory_max", [0, -3, 31, 1.5], [32, 256]),
        ("stop_timeout", [0, -5, 99999999999], [1, 3600]),
        ("batch_wait", ["5 parsecs", "", "1"], ["50ms", "1s", "1m30s", "0.5s"]),
    ],
)
def test_number_out_of_bounds_is_told(name, bad, good):
    for value in bad:
        assert f"promtail_{name} is '{value}'" in problems(**{name: value})[0]
    for value in good:
        assert problems(**{name: value}) == []


def test_unknown_zone_is_told():
    assert "unknown time zone 'Mars/Phobos'" in problems(timezone="Mars/Phobos")[0]
    assert problems(timezone="Asia/Kolkata") == []


@pytest.mark.parametrize(
    ("version", "glibc", "refused"),
    [
        ("3.6.11", "2.34", False),
        ("3.6.11", "2.31", True),
        ("3.5.7", "2.31", True),
        ("3.5.6", "2.31", False),
        ("3.6.11", None, True),
    ],
)
def test_old_c_library_is_told_with_the_version_that_fits(version, glibc, refused):
    found = problems({"glibc": glibc}, version=version)
    assert bool(found) is refused
    if refused:
        assert "promtail_version: 3.5.6" in found[0]


def test_installed_version_proves_that_it_runs_here():
    assert problems({"glibc": "2.31", "archive": "sum"}) == []


def test_unsupported_platform_is_told():
    found = problems({"architecture": "riscv64"}, platform="")
    assert "no program for Linux on riscv64" in found[0]
    assert "systemd is not the init system" in problems({"managed": False})[0]


def test_taken_port_is_told_unless_it_is_adopted():
    holder = {"pid": 7, "command": "/usr/bin/promtail"}
    stray = {"port_holder": holder, "foreign_agents": [{"pid": 7, "command": "/usr/bin/promtail"}]}
    assert "port 9080 is taken by /usr/bin/promtail (pid 7)" in problems(stray)[0]
    assert "promtail_adopt: true" in problems(stray)[0]
    assert problems(stray, adopt=True) == []
    assert "promtail_http_port" in problems({"port_holder": holder})[0]
    assert "a process that is not visible" in problems({"port_holder": {"pid": None, "command": None}})[0]


def test_unit_of_somebody_else_is_told_unless_it_is_adopted():
    assert "promtail_adopt: true" in problems({"foreign_unit": "/etc/systemd/system/promtail.service"})[0]
    assert problems({"foreign_unit": "/etc/systemd/system/promtail.service"}, adopt=True) == []


def test_all_problems_are_told_at_once():
    assert len(problems({"architecture": "riscv64"}, platform="", sources=[], loki_url="")) == 3


PRESET = {
    "entry_start": r"^[IWEF]\d{8} ",
    "pattern": r"^(?P<level>[IWEF])(?P<time>\d{8} \d{2}:\d{2}:\d{2}\.\d{6}) ",
    "time_layouts": ["20060102 15:04:05.000000"],
    "levels": {"I": "INFO"},
    "path_pattern": r"rank(?P<rank>\d+)",
    "labels": ["level", "rank"],
    "sample": "%(message)s",
}


def test_preset_in_a_source_is_used_as_one_by_name():
    assert problems(sources=[SOURCE | {"format": PRESET}]) == []
    (config,) = configs(format=PRESET)
    stages = {name: options for stage in config["pipeline_stages"] for name, options in stage.items()}
    assert stages["labels"] == {"host": "", "level": "", "rank": ""}
    assert told(format=PRESET)["entry_start"] == PRESET["entry_start"]


def test_problem_of_a_preset_has_the_name_of_the_source():
    (found,) = problems(sources=[SOURCE | {"format": PRESET | {"patern": "x"}}])
    assert found.startswith(
        "log source train: format: unknown key patern (did you mean pattern?); known are also, altern"
    )


def test_folder_of_presets_that_does_not_exist_is_told():
    (found,) = agent_checks.problems(SETTINGS, [FORMATS[0], "/no/such/folder"], NODE)
    assert found == "the folder of presets /no/such/folder does not exist"


def test_node_has_a_rank_where_the_source_has_none():
    def ranks(rank: str, **source) -> list[str | None]:
        found = scrape_configs([SOURCE | source], FORMATS, "mini1", "Local", COPIES, rank)
        return [config["static_configs"][0]["labels"].get("rank") for config in found]

    assert ranks("") == [None]
    assert ranks("0") == ranks("0", format=[{"decolorize": None}]) == ["0"]
    assert ranks("0", labels={"rank": "7"}) == ["7"]
    assert problems(rank="0") == problems(rank="12") == problems(rank="server") == []
    for rank in ("one", "-1", "None", "1.5"):
        (problem,) = problems(rank=rank)
        assert problem.startswith(f"smolcluster_rank (or promtail_rank) is '{rank}'; it must be a whole number from 0")


def test_rank_of_a_node_is_not_that_of_files_of_all_nodes():
    labels = scrape_configs([SOURCE | {"shared": {"node": "mini1"}}], FORMATS, "mini1", "Local", COPIES, "0")
    assert "rank" not in labels[0]["static_configs"][0]["labels"]


@pytest.mark.parametrize("shared", [False, "by_name", {"node": "mini2"}])
def test_who_ships_the_files_of_a_shared_folder_can_be_said(shared):
    assert problems(sources=[SOURCE | {"shared": shared}], nodes={"mini1": {"hostname": "a", "machine": "a"}}) == []


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (True, "shared must be by_name, {node: NAME} or false"),
        ("mini1", "shared must be by_name"),
        ({"nodes": "mini1"}, "shared must be by_name"),
        ({"node": "mini9"}, "shared names the node mini9, which is not in the inventory"),
    ],
)
def test_what_a_source_says_of_a_shared_folder_is_checked(shared, words):
    (problem,) = problems(sources=[SOURCE | {"shared": shared}])
    assert problem.startswith(f"log source train: {words}")


def test_source_can_have_a_time_zone_of_its_own():
    def zones(**source):
        return [
            stage["timestamp"]["location"] for stage in configs(**source)[0]["pipeline_stages"] if "timestamp" in stage
        ]

    assert zones() == ["Asia/Kolkata"]
    assert zones(timezone="Europe/Berlin") == ["Europe/Berlin"]
    (problem,) = problems(sources=[SOURCE | {"timezone": "Europe/Nowhere"}])
    assert problem.startswith("log source train: unknown time zone 'Europe/Nowhere'")


def test_page_describes_every_key_of_sources_and_presets():
    page = (ROOT / "docs/sources.md").read_text()
    described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    assert described == sources.SOURCE_KEYS | presets.PRESET_KEYS
    spec = yaml.safe_load((ROOT / "roles/promtail/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    assert set(spec["options"]["promtail_sources"]["options"]) == sources.SOURCE_KEYS
