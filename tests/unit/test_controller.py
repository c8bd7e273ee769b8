"""Problems that prevent a deployment of Loki and Grafana, and what the compose file is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.module_utils import archive, docker
from ansible_collections.smolcluster.logging.plugins.plugin_utils import controller

ROOT = Path(__file__).resolve().parents[2]
LOKI, GRAFANA = "docker_loki_grafana_loki_listen_address", "docker_loki_grafana_grafana_listen_address"

SETTINGS = {
    "project_dir": "/opt/smolcluster-logging",
    "docker_source": "distribution",
    "retention": "30d",
    "grafana_default_password": True,
    "grafana_password_is_one_line": True,
    "grafana_password_is_long_enough": True,
    "listen": {LOKI: "0.0.0.0", GRAFANA: "127.0.0.1"},  # noqa: S104
    "ports": {"docker_loki_grafana_loki_port": 3100, "docker_loki_grafana_grafana_port": "3000"},
    "images": [{"name": "grafana/loki:3.7.8", "digest": "", "file": ""}],
    "max_disk": "",
    "command": "/usr/local/bin/cluster-logs",
}
VARIABLES = ROOT / "roles/docker_loki_grafana/vars/main"
HOST = {
    "system": "Linux",
    "platform": "linux-amd64",
    "command": "absent",
    "logcli": {},
    "distribution": "debian",
    "release": "13",
    "codename": "trixie",
    "managed": True,
    "docker": True,
    "podman": False,
    "snap": False,
    "engine": "26.1.5",
    "engine_unit": "docker.service",
    "docker_service": "enabled",
    "compose": "2.26.1-4",
    "taken": {},
    "missing_addresses": [],
    "foreign_folder": False,
    "folder_error": "",
    "units": {"/etc/systemd/system/smolcluster-logging.service": "absent"},
    "uid": 0,
    "home": "/root",
    "environment": {},
}
MAC = {"system": "Darwin", "distribution": "", "release": "", "uid": 501, "home": "/Users/smol", "compose": "2.40.1"}


def variables_of_the_role() -> dict:
    """Variables of the role, templates as they are written."""
    return {name: value for path in VARIABLES.glob("*.yml") for name, value in yaml.safe_load(path.read_text()).items()}


def problems(host: dict | None = None, **settings) -> list[str]:
    """Problems of the good settings and host above with some of them changed."""
    return controller.problems(SETTINGS | settings, HOST | (host or {}))


def test_good_settings_have_no_problem():
    assert problems() == []


def test_mac_needs_a_running_engine_its_own_account_and_a_folder_at_home():
    home = "/Users/smol/smolcluster-logging"
    assert problems(MAC, project_dir=home) == []
    assert "docker_loki_grafana_project_dir: /Users/smol/smolcluster-logging" in problems(MAC)[0]
    assert "Set ansible_become: false" in problems(MAC | {"uid": 0}, project_dir=home)[0]
    none = MAC | {"docker": False, "engine": "", "compose": ""}
    assert "brew install --cask docker-desktop" in problems(none, project_dir=home)[0]
    assert "colima start" in problems(MAC | {"engine": ""}, project_dir=home)[0]
    assert problems(MAC, project_dir="/Volumes/ssd/logging") == []
    colima = MAC | {"environment": {"DOCKER_HOST": "unix:///Users/smol/.colima/default/docker.sock"}}
    assert problems(colima, project_dir=home) == []
    assert "only to folders below /Users/smol. " in problems(colima, project_dir="/Volumes/ssd/logging")[0]
    for compose in ("", "2.17.3"):
        assert "brew install docker-compose" in problems(MAC | {"compose": compose}, project_dir=home)[0]


@pytest.mark.parametrize(("text", "hours"), [("30d", 720), ("24h", 24), ("2w", 336), ("30", None), ("1.5d", None)])
def test_retention_in_hours(text, hours):
    assert controller.retention_hours(text) == hours


@pytest.mark.parametrize("retention", ["23h", "0d", "30", "a month", ""])
def test_short_or_unreadable_retention_is_refused(retention):
    assert "the minimum is 24 hours" in problems(retention=retention)[0]


@pytest.mark.parametrize("size", ["20", "20 GB", "0GB", "20gb", "1.5TB", "500MB", 20])
def test_unreadable_limit_of_the_disk_is_refused(size):
    assert "Write it as 20GB or 1TB" in problems(max_disk=size)[0]


def test_limit_of_the_disk_needs_linux_with_systemd():
    home = "/Users/smol/smolcluster-logging"
    assert problems(max_disk="20GB") == []
    assert "needs Linux with systemd" in problems({"managed": False}, max_disk="20GB")[-1]
    assert "needs Linux with systemd" in problems(MAC, project_dir=home, max_disk="20GB")[-1]


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.10", "::", "::ffff:192.0.2.10", "controller"])  # noqa: S104
def test_default_password_is_for_loopback_only(address):
    assert f"Grafana would listen on {address} with the default password" in problems(listen={GRAFANA: address})[0]
    assert "default password" not in str(problems(listen={GRAFANA: address}, grafana_default_password=False))
    assert problems(listen={}) == []


def test_password_that_grafana_would_not_take_is_refused():
    (line_feed,) = problems(grafana_password_is_one_line=False)
    assert "has a line feed or another control character" in line_feed
    (short,) = problems(grafana_password_is_long_enough=False)
    assert "has less than five characters" in short


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_default_password_may_stay_on_loopback(address):
    assert problems(listen={GRAFANA: address}) == []


# The address as written, the addresses that Docker binds to, and the host part of a URL for the controller itself.
ADDRESSES = [
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
    ("0.0.0.0", ["0.0.0.0"], "127.0.0.1"),  # noqa: S104
    ("10.10.0.4", ["10.10.0.4"], "10.10.0.4"),
    ("localhost", ["127.0.0.1"], "127.0.0.1"),
    ("::1", ["::1"], "[::1]"),
    ("[::1]", ["::1"], "[::1]"),
    ("FD00:99:0::4", ["fd00:99::4"], "[fd00:99::4]"),
    ("[fd00:99::4]", ["fd00:99::4"], "[fd00:99::4]"),
    ("::ffff:10.10.0.4", ["10.10.0.4"], "10.10.0.4"),
    ("::", ["0.0.0.0", "::"], "127.0.0.1"),  # noqa: S104
    ("[::]", ["0.0.0.0", "::"], "127.0.0.1"),  # noqa: S104
]


@pytest.mark.parametrize(("text", "bind", "url"), ADDRESSES)
def test_address_to_listen_on(text, bind, url):
    assert controller.listen_address(text) == {"bind": bind, "url": url}
    assert problems(listen={LOKI: text}) == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "*",
            "controller",
            "controller.local",
            "eth0",
            "10.0",
            10.0,
            "256.1.1.1",
            "10.10.0.4:3100",
            "10.10.0.4/24",
        ),
        *("http://10.10.0.4", " 10.10.0.4", "[10.10.0.4]", "[::1", "::g", "[::]:3100", "fe80::1", "fe80::1%eth0"),
        *("fd00::1%eth0", "224.0.0.1", "ff02::1", "255.255.255.255"),
    ],
)
def test_address_that_docker_cannot_publish_on_is_refused_by_its_variable(text):
    (found,) = problems(listen={LOKI: text})
    assert found.startswith(f"{LOKI} is '{text}': ")
    assert "Set it to 127.0.0.1 (this host only), 0.0.0.0 (every address) or one address of this host" in found
    assert controller.listen_address(text) == {"bind": [], "url": ""}


def test_address_that_the_host_does_not_have_is_refused():
    host = {"missing_addresses": ["192.0.2.9", "fd00:99::9"]}
    for text in ("192.0.2.9", "fd00:99::9", "[FD00:99::9]"):
        (found,) = problems(host, listen={LOKI: text})
        assert found.startswith(f"{LOKI} is '{text}', an address that this host does not have now. ")
    assert problems(host, listen={LOKI: "192.0.2.1"}) == []
    (found,) = problems({"missing_addresses": ["::"]}, listen={LOKI: "::"})
    assert found == f"{LOKI} is '::', and this host has no IPv6. Set it to 0.0.0.0"


@pytest.mark.parametrize(
    "port", ["", "abc", "0", 0, -1, "65536", 70000, "3100.5", 3100.0, True, "0x50", " 3100", "٣١٠٠"]
)
def test_port_out_of_range_is_refused_by_its_variable(port):
    (found,) = problems(ports={"docker_loki_grafana_loki_port": port})
    assert found == f"docker_loki_grafana_loki_port is '{port}'; it must be a whole number from 1 to 65535"


@pytest.mark.parametrize("port", [1, 3100, "3100", 65535])
def test_port_as_a_number_or_as_text(port):
    assert problems(ports={"docker_loki_grafana_loki_port": port}) == []


def test_one_port_for_both_is_refused():
    ports = {"docker_loki_grafana_loki_port": 3000, "docker_loki_grafana_grafana_port": "3000"}
    (found,) = problems(ports=ports)
    assert found.startswith("docker_loki_grafana_loki_port and docker_loki_grafana_grafana_port are both 3000. ")


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """A function that gives values of the role's internal variables, for each of a list of settings."""
    folder = tmp_path_factory.mktemp("render")

    def values(expression: str, settings: list[dict]) -> list:
        collect = {
            "name": "Value",
            "ansible.builtin.set_fact": {"found": f"{{{{ found | default([]) + [{expression}] }}}}"},
            "vars": {name: f"{{{{ item.{name} | default({default!r}) }}}}" for name, default in defaults.items()},
            "loop": settings,
        }
        target = folder / "values.json"
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars_files": sorted(map(str, VARIABLES.glob("*.yml"))),
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": [collect, {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(target)}}],
        }
        (folder / "play.yml").write_text(yaml.safe_dump([play]))
        env = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "-i", "localhost,", "-c", "local", str(folder / "play.yml")]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(target.read_text())

    defaults = yaml.safe_load((ROOT / "roles/docker_loki_grafana/defaults/main.yml").read_text())
    return values


def test_compose_is_given_ip_addresses_with_ipv6_in_brackets(render):
    names = ("loki_ports", "loki_url", "grafana_ports", "grafana_url")
    expression = "[" + ", ".join(f"__docker_loki_grafana_{name}" for name in names) + "]"
    found = render(expression, [{LOKI: text, GRAFANA: text} for text, _, _ in ADDRESSES])
    for (text, bind, url), value in zip(ADDRESSES, found, strict=True):
        hosts = [f"[{address}]" if ":" in address else address for address in bind]
        loki, grafana = [f"{host}:3100:3100" for host in hosts], [f"{host}:3000:3000" for host in hosts]
        assert value == [loki, f"http://{url}:3100", grafana, f"http://{url}:3000"], text


def test_digest_is_that_of_the_default_image_or_the_one_that_is_set(render):
    own = "sha256:" + "1" * 64
    expression = "[__docker_loki_grafana_loki_reference, __docker_loki_grafana_grafana_reference]"
    plain, other, with_file, with_digest = render(
        expression,
        [
            {},
            {f"docker_loki_grafana_{name}_image": f"registry.invalid/{name}:1.0" for name in ("loki", "grafana")},
            {f"docker_loki_grafana_{name}_image_file": "/srv/image.tar" for name in ("loki", "grafana")},
            {f"docker_loki_grafana_{name}_digest": own for name in ("loki", "grafana")},
        ],
    )
    known = variables_of_the_role()
    known = known["__docker_loki_grafana_known_digests"]
    assert plain == [f"{image}@{digest}" for image, digest in known.items()]
    assert other == ["registry.invalid/loki:1.0", "registry.invalid/grafana:1.0"]
    assert with_file == list(known)
    assert with_digest == [f"{image}@{own}" for image in known]


def test_the_digest_of_each_default_image_is_known():
    role = ROOT / "roles/docker_loki_grafana"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    known = variables_of_the_role()["__docker_loki_grafana_known_digests"]
    assert list(known) == [defaults[f"docker_loki_grafana_{name}_image"] for name in ("loki", "grafana")]
    for digest in known.values():
        assert problems(images=[{"name": "x", "digest": digest, "file": ""}]) == []


def test_lines_cannot_be_deleted_over_http():
    variables = variables_of_the_role()
    assert variables["__docker_loki_grafana_loki_config"]["limits_config"]["deletion_mode"] == "disabled"


@pytest.mark.parametrize(
    ("host", "source", "words"),
    [
        (
            {"docker": False, "compose": ""},
            "present",
            "Docker is missing and docker_loki_grafana_docker_source is present",
        ),
        ({"compose": ""}, "present", "Docker is installed without its compose plugin"),
        ({"docker": False, "compose": "", "release": "12"}, "distribution", "debian 12 has no package"),
        (
            {"docker": False, "compose": "", "distribution": "fedora", "release": "42"},
            "docker",
            "cannot install it on fedora",
        ),
        ({"compose": "2.17.3"}, "distribution", "2.18 or newer is needed"),
        ({"engine": "", "managed": False, "docker_service": ""}, "distribution", "does not answer"),
        ({"docker": False, "compose": "", "managed": False}, "distribution", "because this host has no systemd"),
    ],
)
def test_missing_old_or_stopped_docker_is_refused(host, source, words):
    assert words in problems(host, docker_source=source)[0]


@pytest.mark.parametrize("state", ["disabled", "masked", "masked-runtime", "static", "linked"])
def test_stopped_engine_is_not_started_against_the_setting_of_its_host(state):
    (found,) = problems({"engine": "", "docker_service": state})
    assert f"its unit docker.service is {state} on this host, so this role does not start it" in found
    assert "systemctl enable --now docker" in found


def test_stopped_engine_of_another_unit_is_not_replaced_by_docker_service():
    (found,) = problems({"engine": "", "docker_service": ""})
    assert "does not answer, and this host has no unit docker.service. Start the engine" in found


@pytest.mark.parametrize(
    ("unit", "state"), [("docker.service", "disabled"), ("engine.service", "masked"), ("", ""), ("engine.service", "")]
)
def test_engine_that_answers_is_used_whatever_its_unit(unit, state):
    assert problems({"engine_unit": unit, "docker_service": state}) == []


@pytest.mark.parametrize("host", [{}, MAC])
def test_podman_under_the_name_of_docker_is_refused(host):
    (found,) = problems(host | {"podman": True, "compose": "2.40.1"}, project_dir="/Users/smol/logging")
    assert "on this host runs Podman, which this role cannot use" in found


def test_docker_of_the_snap_store_is_refused():
    (found,) = problems({"snap": True})
    assert "snap remove docker" in found


def test_account_without_rights_gets_the_message_about_rights_only():
    blind = {"uid": 1000, "engine": "", "docker_service": "", "taken": {"3100": {"pid": None, "command": None}}}
    (found,) = problems(blind | {"folder_error": "Permission denied"})
    assert found.startswith("this role needs root on this host, but Ansible runs there with user ID 1000. Remove ")
    assert "ansible_become: false" in found
    assert "--ask-become-pass" in found


@pytest.mark.parametrize(
    "host",
    [
        {"docker": False, "compose": ""},
        {"docker": False, "compose": "", "distribution": "ubuntu", "release": "22.04"},
        {"compose": "5.0.1"},
        {"engine": ""},
    ],
)
def test_docker_that_is_there_or_can_be_installed_or_started(host):
    assert problems(host) == []


def test_taken_port_names_its_holder_and_the_variable():
    found = problems({"taken": {"3100": {"pid": 5, "command": "nginx"}}})
    assert "port 3100 is taken by nginx (pid 5)" in found[0]
    assert "docker_loki_grafana_loki_port" in found[0]
    found = problems({"taken": {"3000": {"pid": None, "command": None}}})
    assert found[0].startswith("port 3000 is taken by a program that this account cannot see. ")


def test_image_file_must_exist_and_excludes_a_digest(tmp_path):
    image = {"name": "grafana/loki:3.7.8", "digest": "", "file": str(tmp_path / "loki.tar")}
    assert "there is no image file" in problems(images=[image])[0]
    (tmp_path / "loki.tar").touch()
    assert problems(images=[image]) == []
    assert "digest works only for an image that is pulled" in problems(images=[image | {"digest": "sha256:1"}])[0]
    (tmp_path / "loki.tar").unlink()
    os.mkfifo(tmp_path / "loki.tar")
    assert "there is no image file" in problems(images=[image])[0]


@pytest.mark.parametrize("digest", ["sha256:1", "1" * 64, "sha256:" + "g" * 64])
def test_digest_is_a_sha_256(digest):
    (found,) = problems(images=[{"name": "grafana/loki:3.7.8", "digest": digest, "file": ""}])
    assert f"'{digest}' is not a digest" in found


def test_folder_and_unit_of_somebody_else_are_refused():
    assert "holds files that this collection did not create" in problems({"foreign_folder": True})[0]
    assert "cannot be used: Permission denied" in problems({"folder_error": "Permission denied"})[0]
    (found,) = problems({"units": {"/etc/systemd/system/smolcluster-logging.service": "foreign"}})
    assert found == (
        "/etc/systemd/system/smolcluster-logging.service exists and was not created by this collection. Move it away"
    )


def test_command_of_somebody_else_and_unknown_processor_are_refused():
    (found,) = problems({"command": "foreign"})
    assert found == "/usr/local/bin/cluster-logs exists and was not created by this collection. Move it away"
    (found,) = problems({"platform": ""})
    assert found.startswith("there is no logcli, Loki's client, for Linux on this host's processor. Use a host ")


def test_other_systems_are_refused():
    assert "supports Linux and macOS, not FreeBSD" in problems({"system": "FreeBSD"})[0]


class Commands:
    """Stand-in for AnsibleModule: runs nothing, and knows what each command prints.

    Parameters:
        known: output by command line; any other command fails.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        """Exit code, output and errors of a command."""
        line = " ".join(argv)
        return (0, self.known[line], "") if line in self.known else (1, "", "unknown")


COMPONENTS = "docker version --format {{range .Server.Components}}{{.Name}} {{end}}"


@pytest.mark.parametrize(
    ("known", "podman"),
    [
        ({"docker --version": "Docker version 26.1.5, build a72d7cd", COMPONENTS: "Engine containerd runc"}, False),
        ({"docker --version": "Docker version 26.1.5, build a72d7cd"}, False),
        ({"docker --version": "podman version 5.4.2"}, True),
        ({"docker --version": "Docker version 26.1.5", COMPONENTS: "Podman Engine Conmon OCI Runtime (crun)"}, True),
        ({}, False),
    ],
)
def test_podman_is_known_by_its_client_or_its_service(known, podman):
    assert docker.is_podman(Commands(known), "docker") is podman


def test_unit_of_the_engine(monkeypatch):
    monkeypatch.setattr(docker.host, "processes_of", lambda name: {"dockerd": [5, 6]}[name])
    monkeypatch.setattr(docker.linux, "unit_of", {5: None, 6: "engine.service"}.get)
    assert docker.engine_unit({"Id": "docker.service", "ActiveState": "active"}) == "docker.service"
    assert docker.engine_unit({"Id": "docker.service", "ActiveState": "inactive"}) == "engine.service"
    monkeypatch.setattr(docker.linux, "unit_of", lambda _: None)
    assert docker.engine_unit({}) == ""


def test_os_release_with_other_bytes_than_utf_8_and_one_that_is_no_file(tmp_path, monkeypatch):
    file = tmp_path / "os-release"
    monkeypatch.setattr(docker, "OS_RELEASE", file)
    assert docker.os_release() == {}
    file.write_bytes(b'NAME="Caf\xe9 Linux"\nID=debian\nVERSION_ID="13"\n\xff\n')
    assert docker.os_release()["ID"] == "debian"
    assert docker.os_release()["VERSION_ID"] == "13"
    file.unlink()
    os.mkfifo(file)
    assert docker.os_release() == {}


def test_whose_a_unit_is(tmp_path):
    unit, mark = tmp_path / "x.service", "Managed by smolcluster.logging"
    assert docker.owner_of(unit, mark) == "absent"
    unit.write_bytes(f"# {mark}\n[Unit]\n# caf".encode() + b"\xe9\n")
    assert docker.owner_of(unit, mark) == "ours"
    unit.write_bytes(b"[Unit]\n\xff\n")
    assert docker.owner_of(unit, mark) == "foreign"
    unit.unlink()
    unit.symlink_to("/dev/null")  # masked
    assert docker.owner_of(unit, mark) == "foreign"
    unit.unlink()
    os.mkfifo(unit)
    assert docker.owner_of(unit, mark) == "foreign"


def test_whose_a_folder_is(tmp_path):
    folder = tmp_path / "project"
    assert docker.look_into(folder, "mark") == (False, "")
    folder.mkdir()
    assert docker.look_into(folder, "mark") == (False, "")
    (folder / "file").touch()
    assert docker.look_into(folder, "mark") == (True, "")
    (folder / "mark").touch()
    assert docker.look_into(folder, "mark") == (False, "")
    assert docker.look_into(folder / "file", "mark") == (True, "")


def test_folder_that_the_account_cannot_see(monkeypatch):
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert docker.look_into(Path("/"), "mark") == (False, "Permission denied")


def test_addresses_of_this_host():
    assert docker.has_address("127.0.0.1")
    assert docker.has_address("0.0.0.0")  # noqa: S104
    assert not docker.has_address("192.0.2.9")
    assert not docker.has_address("2001:db8::9")


def test_whose_the_command_is(tmp_path):
    command, project = tmp_path / "cluster-logs", tmp_path / "project"
    assert docker.owner_of_command(command, project, "mark") == "absent"
    command.symlink_to(project / "bin/cluster-logs")  # also when its folder was removed by hand
    assert docker.owner_of_command(command, project, "mark") == "ours"
    command.unlink()
    (tmp_path / "before/bin").mkdir(parents=True)
    command.symlink_to(tmp_path / "before/bin/cluster-logs")
    assert docker.owner_of_command(command, project, "mark") == "foreign"
    (tmp_path / "before/mark").touch()
    assert docker.owner_of_command(command, project, "mark") == "ours"
    command.unlink()
    command.touch()
    assert docker.owner_of_command(command, project, "mark") == "foreign"


COMPOSED = "loki 6d13\ngrafana 99ab\n"
RUNNING = "loki 6d13 running Up 8 minutes (healthy)\ngrafana 99ab running Up 2 days (healthy)\n"


@pytest.mark.parametrize(
    ("composed", "running", "right"),
    [
        (COMPOSED, RUNNING, True),
        (COMPOSED, RUNNING.replace("99ab", "0000"), False),
        (COMPOSED, RUNNING.replace("Up 2 days (healthy)", "Up 2 seconds (health: starting)"), False),
        (COMPOSED, RUNNING.replace("(healthy)", "(unhealthy)"), False),
        (COMPOSED, RUNNING.replace("running Up 2 days (healthy)", "exited Exited (0) 3 hours ago"), False),
        (COMPOSED, RUNNING.splitlines()[0], False),
        ("loki 6d13", RUNNING, False),
        ("", "", False),
    ],
)
def test_services_run_as_composed(composed, running, right):
    answers = {"compose": composed, "ps": running}
    module = SimpleNamespace(
        params={"project_dir": "/opt/smolcluster-logging"}, run_command=lambda argv: (0, answers[argv[1]], "")
    )
    assert docker.as_composed(module, "docker", "label=x") is right


def test_digests_are_of_regular_files_only(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(file)
    os.mkfifo(tmp_path / "fifo")
    found = archive.digests([str(file), str(link), str(tmp_path / "fifo"), str(tmp_path), str(tmp_path / "missing")])
    assert found == {str(file): "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
