"""What others have set up on a node: masked units, drop-ins, slices, packages, agents with passwords."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.harness import DUMMY, MINIS, Lab, Play, release

MINI = MINIS[2]
ONE = ("--tags", "promtail", "--limit", MINI.name)
UNIT = "/etc/systemd/system/promtail.service"
DROP_IN = "/etc/systemd/system/promtail.service.d/by-hand.conf"
EVERYBODY = "/etc/systemd/system/service.d/by-hand.conf"
# Files that everybody can write where only root may; a link has no permissions of its own.
OPEN = f"find {UNIT}* /etc/promtail /opt/promtail ! -type l -perm /o+w"
# A stand-in for Promtail that passes every check before the switch and dies as a service, as Go's programs do.
PANIC = """#!/bin/sh
case "$*" in *-version*|*-dry-run*) exit 0 ;; esac
echo "panic: label value is not valid UTF-8"
echo
echo "goroutine 1 [running]:"
for n in $(seq 60); do echo "main.frame$n(0x0)"; done
exit 2
"""


def text_of(play: Play) -> str:
    """Output of a play without its line breaks, and without what YAML makes of an apostrophe."""
    return " ".join(play.output.split()).replace("''", "'")


def state(lab: Lab) -> str:
    """What a deployment leaves on the node, in a few lines."""
    return lab.on(
        MINI,
        f"""sha256sum {UNIT} /etc/promtail/promtail.yml; stat -c '%N %F %U %a' {UNIT}* /etc/promtail/*
        readlink /opt/promtail/current; sha256sum /opt/promtail/current/promtail; ls -A /opt/promtail
        systemctl is-enabled promtail; systemctl is-active promtail; true""",
    )


@pytest.fixture
def clean(lab: Lab) -> Iterator[None]:
    """Afterwards the node is as a deployment leaves it."""
    before = state(lab)
    yield
    lab.on(
        MINI,
        f"rm -rf $(dirname {DROP_IN} {EVERYBODY}); systemctl daemon-reload; systemctl restart promtail; "
        f"rm -f {UNIT}.before-smolcluster*",
        check=False,
    )
    if state(lab) != before:
        lab.deploy(*ONE, promtail_adopt=True)
        lab.on(MINI, f"rm -f {UNIT}.before-smolcluster*")
        assert state(lab) == before


def mask(lab: Lab) -> None:
    """Mask the unit, as somebody does who does not want the agent."""
    lab.on(MINI, f"systemctl stop promtail; rm {UNIT}; systemctl mask promtail")


@pytest.mark.usefixtures("clean")
def test_failed_switch_over_a_masked_unit_leaves_the_mask(lab: Lab, tmp_path):
    mask(lab)
    play = lab.play("site.yml", *ONE, promtail_adopt=True, **release(tmp_path, "9.9.3", DUMMY.encode()))
    assert play.code != 0
    assert "no agent ran before, and none runs now" in text_of(play)
    assert lab.on(MINI, f"readlink {UNIT}; ls {UNIT}*; {OPEN}").split() == ["/dev/null", UNIT]
    assert lab.on(MINI, "systemctl show promtail --property=LoadState --value") == "masked"


@pytest.mark.usefixtures("clean")
def test_masked_unit_is_adopted_and_kept_as_a_link(lab: Lab):
    mask(lab)
    play = lab.play("site.yml", *ONE)
    assert play.code != 0
    assert f"{UNIT} exists already and was not created by this collection. Set promtail_adopt" in text_of(play)
    lab.deploy(*ONE, promtail_adopt=True)
    assert lab.on(MINI, f"readlink {UNIT}.before-smolcluster; {OPEN}") == "/dev/null"
    assert lab.agent_pid(MINI) != "0"


@pytest.mark.usefixtures("clean")
def test_configuration_behind_a_link_comes_back_as_that_link(lab: Lab, tmp_path):
    config = "/etc/promtail/promtail.yml"
    lab.on(MINI, f"mkdir -p /root/managed; mv {config} /root/managed; ln -s /root/managed/promtail.yml {config}")
    play = lab.play("site.yml", *ONE, **release(tmp_path, "9.9.3", DUMMY.encode()))
    assert play.code != 0
    assert lab.on(MINI, f"readlink {config}; {OPEN}") == "/root/managed/promtail.yml"
    lab.on(MINI, f"mv /root/managed/promtail.yml {config}; rmdir /root/managed")


@pytest.mark.usefixtures("clean")
def test_agent_in_another_slice_is_the_collections_own(lab: Lab):
    lab.on(MINI, f"mkdir -p $(dirname {DROP_IN}); printf '[Service]\\nSlice=training.slice\\nNice=5\\n' > {DROP_IN}")
    lab.on(MINI, "systemctl daemon-reload; systemctl restart promtail")
    pid = lab.agent_pid(MINI)
    assert "/training.slice/promtail.service" in lab.on(MINI, f"cat /proc/{pid}/cgroup")
    play = lab.deploy(*ONE, promtail_adopt=True)
    assert play.changed() == 0, play.output
    assert lab.agent_pid(MINI) == pid
    assert f"{DROP_IN} sets Nice, Slice for the agent's service" in text_of(play)


@pytest.mark.parametrize("path", [DROP_IN, EVERYBODY])
@pytest.mark.usefixtures("clean")
def test_drop_in_that_changes_what_runs_is_refused(lab: Lab, path):
    lab.on(MINI, f"mkdir -p $(dirname {path}); printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' > {path}")
    pid = lab.agent_pid(MINI)
    play = lab.play("site.yml", *ONE)
    assert play.code != 0
    assert f"{path} sets ExecStart for the agent's service" in text_of(play)
    assert "systemctl daemon-reload" in text_of(play)
    assert (play.changed(), lab.agent_pid(MINI)) == (0, pid)


@pytest.mark.usefixtures("clean")
def test_package_with_the_unit_is_named_at_adoption(lab: Lab):
    lab.on(
        MINI,
        f"""set -e
        mkdir -p /tmp/deb/DEBIAN /tmp/deb/$(dirname {UNIT})
        printf '%s\\n' 'Package: promtail-by-hand' 'Version: 1' 'Architecture: all' 'Maintainer: a <a@b>' \\
          'Description: test' > /tmp/deb/DEBIAN/control
        printf '[Service]\\nExecStart=/bin/sleep inf\\n' > /tmp/deb/{UNIT}
        dpkg-deb --build --root-owner-group /tmp/deb /tmp/promtail-by-hand.deb
        dpkg --install /tmp/promtail-by-hand.deb
        rm -r /tmp/deb /tmp/promtail-by-hand.deb
        systemctl daemon-reload""",
    )
    try:
        play = lab.play("site.yml", *ONE)
        assert play.code != 0
        assert f"{UNIT} exists already and was not created by this collection (package promtail-by-hand)" in text_of(
            play
        )
        play = lab.deploy(*ONE, promtail_adopt=True)
        assert "the package promtail-by-hand has a service with the same name" in text_of(play)
        assert "`apt-get remove promtail-by-hand` on this host, then run this again" in text_of(play)
    finally:
        lab.on(MINI, "dpkg --remove promtail-by-hand")
    # It took the collection's unit with it.
    assert lab.on(MINI, f"ls {UNIT} 2>/dev/null; true") == ""
    play = lab.deploy(*ONE)
    assert "the package promtail-by-hand" not in text_of(play)
    assert lab.agent_pid(MINI) != "0"


@pytest.mark.usefixtures("clean")
def test_no_password_of_a_foreign_agent_is_shown(lab: Lab):
    by_hand = (
        "/opt/promtail/current/promtail -config.file=/tmp/by-hand.yml "
        "-client.url=http://bob:hunter2@127.0.0.1:9/loki/api/v1/push"
    )
    changes = "s/9080/9081/; s#/run/promtail/positions.yaml#/tmp/positions.yaml#"
    lab.on(MINI, f"sed '{changes}' /etc/promtail/promtail.yml > /tmp/by-hand.yml")
    lab.on(MINI, f"setsid {by_hand} >/dev/null 2>&1 & until ss -Hltn | grep -q :9081; do :; done")
    masked = by_hand.replace("bob:hunter2", "***")
    try:
        for play in (
            lab.deploy(*ONE, "-vvv"),
            lab.play("site.yml", *ONE, "-vvv", promtail_http_port=9081),
            lab.play("playbooks/status.yml", "--limit", MINI.name),
            lab.deploy(*ONE, "-vvv", promtail_adopt=True),
        ):
            assert "hunter2" not in play.output
            assert masked in text_of(play), play.output
    finally:
        lab.on(
            MINI,
            "pkill -f '^/opt/promtail/current/promtail -config.file=/tmp'; "
            "rm -f /tmp/by-hand.yml /tmp/positions.yaml; true",
        )


@pytest.mark.usefixtures("clean")
def test_fifos_where_root_looks_block_nothing(lab: Lab):
    lab.on(MINI, "mkfifo /tmp/positions.yaml; chown smol /tmp/positions.yaml")
    try:
        assert lab.deploy(*ONE, promtail_adopt=True).changed() == 0
    finally:
        lab.on(MINI, "rm -f /tmp/positions.yaml")


@pytest.mark.usefixtures("clean")
def test_message_ends_with_the_panic_and_says_that_the_old_agent_dies_too(lab: Lab, tmp_path):
    mini, program = MINI, "/opt/promtail/current/promtail"
    # As when both die of the same file: the old one runs on until it is stopped, and does not come back.
    lab.on(mini, f"cp -p {program} /root/promtail; cat > {program}.new; chmod 0755 {program}.new", data=PANIC)
    lab.on(mini, f"mv {program}.new $(readlink -f {program})")
    try:
        play = lab.play("site.yml", *ONE, **release(tmp_path, "9.9.4", PANIC.encode()))
    finally:
        lab.on(mini, f"mv /root/promtail $(readlink -f {program}); systemctl restart promtail")
    assert play.code != 0
    assert "the agent that ran before was restored but fails again" in text_of(play)
    message = play.output[play.output.index("Last log lines") :].partition("PLAY RECAP")[0].rstrip(' \n}"')
    assert message.endswith("panic: label value is not valid UTF-8"), message
