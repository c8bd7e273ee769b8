"""What a user may rely on once the role promtail has run."""

testinfra_hosts = ["minis"]


def test_agent_runs_now_and_after_a_reboot(host):
    service = host.service("promtail")
    assert service.is_running, host.run("journalctl -u promtail -n 30").stdout
    assert service.is_enabled


def test_agent_runs_as_its_own_user(host):
    (agent,) = host.process.filter(comm="promtail")
    assert agent.user == "promtail"
    assert host.user("promtail").shell == "/usr/sbin/nologin"


def test_metrics_are_on_loopback(host):
    assert host.socket("tcp://127.0.0.1:9080").is_listening
    assert not host.socket("tcp://0.0.0.0:9080").is_listening


def test_configuration_is_not_world_readable(host):
    config = host.file("/etc/promtail/promtail.yml")
    assert (config.user, config.group, config.mode) == ("root", "promtail", 0o640)


def test_version_is_a_folder_behind_a_link(host):
    link = host.file("/opt/promtail/current")
    assert link.is_symlink
    assert host.file(f"/opt/promtail/{host.check_output('readlink /opt/promtail/current')}/promtail").mode == 0o755


def test_state_is_only_the_agents(host):
    state = host.file("/var/lib/promtail")
    assert (state.user, state.mode) == ("promtail", 0o750)
