"""Bringing the lab's hosts up and down. Nothing is deployed on them here."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import yaml

from lab import artifacts, images
from lab.config import ADDRESS, HOSTS, MAC, NETWORK, STATE, USER, VARIABLES, Host
from lab.shell import LabError, lock, run, step, wait_for

# What systemd and a Docker engine need in a container; SYS_PTRACE lets the controller's own engine run health checks,
# DAC_READ_SEARCH is a right that every real host gives to its services. `--privileged` would do as well but is refused
# on some hosts.
RIGHTS = [
    *(f"--cap-add={name}" for name in ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH")),
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
]
CONTAINERS = {
    "mini": [*RIGHTS, "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp"],
    # SYS_PTRACE lets lsof see whose a port is.
    "mac": ["--cap-add=SYS_PTRACE", "--tmpfs=/run", "--tmpfs=/private/tmp:exec,mode=1777"],
}
INOTIFY_INSTANCES = 1024
CONTAINERS["controller"] = CONTAINERS["mini"]
CONTAINERS["mac-controller"] = [*RIGHTS, *CONTAINERS["mac"]]


def state_of(host: Host) -> str:
    """State of a host's container as Docker names it (`running`, `exited`, …), or `missing`."""
    return inspect(host, ".State.Status") or "missing"


def inspect(host: Host, field: str) -> str:
    """A field of a host's container as `docker inspect` names it; empty when there is no container."""
    return run(["docker", "inspect", "--format", f"{{{{{field}}}}}", host.container], check=False).stdout.strip()


def execute(host: Host, *command: str, data: str | None = None) -> str:
    """Run a command as root on a host, past SSH; for setting the host up, not for tests of the product."""
    return run(["docker", "exec", "--interactive", host.container, *command], data=data).stdout


def start(host: Host) -> None:
    """Start a host's container, or make it first; a running one of the right image is left as it is.

    Raises:
        LabError: a port on loopback is taken, or systemd does not come up.
    """
    state, image = state_of(host), images.of_host(host.role, host.suite)
    if state != "missing" and inspect(host, ".Config.Image") != image:
        print(f"{host.name} has an older image and is created again", flush=True)
        run(["docker", "rm", "--force", host.container])
        state = "missing"
    if state == "running":
        return
    if state != "missing":
        run(["docker", "start", host.container])
    else:
        ports = [(host.ssh_port, 22), *((port, port) for port in host.ports)]
        for outside, _ in ports:
            require_free(outside)
        command = ["docker", "run", "--detach", f"--name={host.container}", f"--hostname={host.name}"]
        command += CONTAINERS[host.role]
        command += [f"--network={NETWORK}", f"--network-alias={host.name}", f"--label={NETWORK}"]
        command += [f"--publish={ADDRESS}:{outside}:{inside}" for outside, inside in ports]
        if host.role.endswith("controller"):
            # overlay2 cannot lie on overlay2, so the inner engine's data needs a volume.
            command += [f"--volume={host.container}-docker:/var/lib/docker"]
        run([*command, image])


def allow_many_hosts() -> None:
    """Raise Linux's limit for inotify where this is allowed: systemd of each host needs about ten of the usual 128."""
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if os.access(limit, os.W_OK) and int(limit.read_text()) < INOTIFY_INSTANCES:
        limit.write_text(str(INOTIFY_INSTANCES))
        print(f"fs.inotify.max_user_instances of this machine is {INOTIFY_INSTANCES} now, for systemd of many hosts")


def require_free(port: int) -> None:
    """Make sure that nobody listens on a port of the lab's loopback address.

    Raises:
        LabError: somebody does.
    """
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise LabError(f"port {port} on {ADDRESS} is taken; the lab needs it. `ss -ltnp` shows by whom.")


def booted(host: Host) -> bool:
    """Whether systemd is done with starting a host; on the simulated Mac, whether SSH runs."""
    mac = host.role.startswith("mac")
    command = ["launchctl", "print", "system/com.openssh.sshd"] if mac else ["systemctl", "is-system-running"]
    said = run(["docker", "exec", host.container, *command], check=False).stdout
    return "state = running" in said if mac else said.strip() in ("running", "degraded")


def prepare(host: Host, public_key: str) -> str:
    """Give a host its zone and the lab's SSH key.

    Returns:
        The host's line for a known_hosts file.
    """
    wait_for(lambda: booted(host), f"{host.name} has booted", 90)
    home = f"/{'Users' if host.role.startswith('mac') else 'home'}/{USER}"
    script = f"""
        set -e
        ln -sfn /usr/share/zoneinfo/{host.zone} /etc/localtime
        echo {host.zone} > /etc/timezone
        install -o {USER} -m 0600 /dev/stdin {home}/.ssh/authorized_keys
        cat /etc/ssh/ssh_host_ed25519_key.pub
    """
    key = execute(host, "sh", "-c", script, data=public_key).split()
    return f"[{ADDRESS}]:{host.ssh_port} {key[0]} {key[1]}"


def write_variables() -> None:
    """Fill the artifacts folder, and write variables that make the roles install from it beside the artifacts."""
    with lock("artifacts"):
        part = VARIABLES.with_name(VARIABLES.name + ".part")
        part.write_text(yaml.safe_dump(artifacts.ensure()))
        # At once, because a run of Ansible may read it now.
        part.replace(VARIABLES)


def up(mac: bool = False) -> None:
    """Bring every host up, and write what `inventory/lab/` and `ssh -F` need into the state folder.

    Parameters:
        mac: whether the simulated Mac is wanted, too; one that is there already stays.
    """
    write_variables()
    allow_many_hosts()
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    hosts = (*HOSTS, MAC) if mac or state_of(MAC) != "missing" else HOSTS
    images.all_hosts(hosts)
    key = STATE / "id_ed25519"
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "smolcluster-lab", "-f", key])
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode:
        run(["docker", "network", "create", f"--label={NETWORK}", NETWORK])
    with step(f"Starting {', '.join(host.name for host in hosts)}"):
        for host in hosts:
            start(host)
        known = [prepare(host, key.with_suffix(".pub").read_text()) for host in hosts]
    (STATE / "known_hosts").write_text("".join(f"{line}\n" for line in known))
    (STATE / "ssh_config").write_text(ssh_config(key, hosts))
    if MAC in hosts:
        # inventory/lab/hosts.py gives this to Ansible.
        (STATE / "mac1.json").write_text(json.dumps(artifacts.mac()))


def restart(host: Host, cut: bool = False) -> None:
    """Restart a host and wait until it has booted; `/tmp` and `/run` are empty then, its other files are kept.

    Parameters:
        host: a host that is up.
        cut: whether it just loses power instead of shutting down.
    """
    run(["docker", "kill" if cut else "stop", host.container])
    run(["docker", "start", host.container])
    wait_for(lambda: booted(host), f"{host.name} has booted", 90)


def ssh_config(key: Path, hosts: Sequence[Host]) -> str:
    """Text of a configuration with which `ssh -F` reaches the hosts by name."""
    common = f"""Host *
  HostName {ADDRESS}
  User {USER}
  IdentityFile {key}
  IdentitiesOnly yes
  UserKnownHostsFile {STATE / "known_hosts"}
"""
    return "".join(f"Host {host.name}\n  Port {host.ssh_port}\n" for host in hosts) + common


def remove(host: Host) -> None:
    """Remove one host; the simulated Mac from the inventory as well."""
    run(["docker", "rm", "--force", "--volumes", host.container], check=False)
    run(["docker", "volume", "rm", "--force", f"{host.container}-docker"])
    if host == MAC:
        (STATE / "mac1.json").unlink(missing_ok=True)


def down() -> None:
    """Remove every container, network and volume that the lab made; nothing else."""
    for kind, list_all in (("container", ["--all"]), ("network", [])):
        found = run(["docker", kind, "ls", *list_all, "--quiet", f"--filter=label={NETWORK}"]).stdout.split()
        if found:
            run(["docker", kind, "rm", *(["--force", "--volumes"] if kind == "container" else []), *found])
    volumes = run(["docker", "volume", "ls", "--quiet", f"--filter=name=^{NETWORK}-"]).stdout.split()
    if volumes:
        run(["docker", "volume", "rm", *volumes])
    for name in ("known_hosts", "ssh_config", "mac1.json"):
        (STATE / name).unlink(missing_ok=True)
