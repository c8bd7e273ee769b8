#!/usr/bin/env python3
"""Inventory script: the hosts of the container lab that `make lab` brings up, by LAB_NUMBER.

Real machines are in inventory/hosts.yml.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.config import ADDRESS, HOSTS, MAC, STATE, USER

hosts = {host.name: {"ansible_host": ADDRESS, "ansible_port": host.ssh_port} for host in HOSTS}
# Its name in the lab's network; ansible_host is only right for this machine.
hosts["controller"]["smolcluster_address"] = "controller"
# The simulated Mac is there after `make lab MAC=1`.
if (STATE / "mac1.json").exists():
    hosts[MAC.name] = hosts["mini1"] | {"ansible_port": MAC.ssh_port} | json.loads((STATE / "mac1.json").read_text())
connection = {
    "ansible_user": USER,
    "ansible_ssh_private_key_file": str(STATE / "id_ed25519"),
    "ansible_ssh_common_args": f"-o UserKnownHostsFile={STATE / 'known_hosts'} -o IdentitiesOnly=yes",
}
groups = {
    "all": {"vars": connection},
    "controller": {"hosts": ["controller"]},
    "minis": {"hosts": [name for name in hosts if name != "controller"]},
}
print(json.dumps(groups | {"_meta": {"hostvars": hosts}}))
