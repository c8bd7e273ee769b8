"""Command lines of others: what may be a secret is not shown, and all else is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils import foreign_agents, host, masking
from ansible_collections.smolcluster.logging.plugins.module_utils.agents import promtail as promtail_agent
from ansible_collections.smolcluster.logging.plugins.module_utils.masking import masked
from ansible_collections.smolcluster.logging.plugins.module_utils.systems import linux

HIDDEN = "s3cr3t"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        # Addresses
        (["promtail", "-client.url=http://u:s3cr3t@h:3100/push"], "promtail -client.url=http://***@h:3100/push"),
        (["promtail", "-client.url", "http://u:s3cr3t@h:3100"], "promtail -client.url http://***@h:3100"),
        (["x", "http://u:p@s3cr3t@h/a@b"], "x http://***@h/a@b"),
        (["x", "https://s3cr3t@h/"], "x https://***@h/"),
        (["x", "postgres://u:s3cr3t@/db"], "x postgres://***@/db"),
        (["x", "bob:s3cr3t@h/db"], "x bob:***@h/db"),
        (["x", "http://h/p?token=s3cr3t&a=1"], "x http://h/p?token=***&a=1"),
        (["x", "http://h/p?a=1&api_key=s3cr3t"], "x http://h/p?a=1&api_key=***"),
        # Options
        (["x", "-client.password=s3cr3t"], "x -client.password=***"),
        (["x", "--password=two s3cr3t words"], "x --password=***"),
        (["x", "--token", "s3cr3t", "--port", "80"], "x --token *** --port 80"),
        (["x", "--token", "-s3cr3t"], "x --token ***"),
        (["x", "--password", "--verbose"], "x --password --verbose"),
        (["x", "-client.bearer-token=s3cr3t"], "x -client.bearer-token=***"),
        (["x", "-client.basic-auth.password", "s3cr3t"], "x -client.basic-auth.password ***"),
        (["x", "--basic-auth", "u:s3cr3t"], "x --basic-auth ***"),
        (["x", "--auth=bob:s3cr3t"], "x --auth=bob:***"),
        (["curl", "-u", "bob:s3cr3t"], "curl -u bob:***"),
        (["curl", "--user", "bob:s3cr3t"], "curl --user bob:***"),
        (["x", "--clientSecret=s3cr3t"], "x --clientSecret=***"),
        (["x", "--apiKey", "s3cr3t"], "x --apiKey ***"),
        (["x", "--access-key=s3cr3t"], "x --access-key=***"),
        (["java", "-Djavax.net.ssl.keyStorePassword=s3cr3t"], "java -Djavax.net.ssl.keyStorePassword=***"),
        (["redis-server", "--requirepass", "s3cr3t"], "redis-server --requirepass ***"),
        # As in an environment
        (["env", "LOKI_PASSWORD=s3cr3t", "promtail"], "env LOKI_PASSWORD=*** promtail"),
        (["env", "PGPASSWORD=s3cr3t"], "env PGPASSWORD=***"),
        (["env", "AWS_HIDDEN_ACCESS_KEY=s3cr3t"], "env AWS_HIDDEN_ACCESS_KEY=***"),
        (["env", "DB_PASS=s3cr3t"], "env DB_PASS=***"),
        # Headers; a Mac gives words split at spaces
        (["curl", "-H", "Authorization: Bearer s3cr3t"], "curl -H Authorization: ***"),
        (["curl", "-H", "Authorization:", "Basic", "s3cr3t=="], "curl -H Authorization: ***"),
        (["x", "bearer", "s3cr3t"], "x bearer ***"),
        (["curl", "-H", "X-Api-Key: s3cr3t"], "curl -H X-Api-Key: ***"),
        # Inside other texts
        (
            ["sh", "-c", "A=1 promtail -client.url=http://u:s3cr3t@h --token s3cr3t -x"],
            "sh -c A=1 promtail -client.url=http://***@h --token *** -x",
        ),
        (["sh", "-c", "LOKI_PASSWORD='a s3cr3t' promtail"], "sh -c LOKI_PASSWORD=***"),
        (["sh", "-c", "exec mysql --password 'a s3cr3t b' -h x"], "sh -c exec mysql --password *** -h x"),
        (["x", '{"password": "s3cr3t", "port": 9080}'], 'x {"password": ***, "port": 9080}'),
        (["x", "password: s3cr3t"], "x password: ***"),
    ],
)
def test_secrets_are_not_shown(words, shown):
    assert HIDDEN not in masked(words)
    assert masked(words) == shown


@pytest.mark.parametrize(
    "words",
    [
        "/usr/bin/promtail -config.file=/etc/promtail/config.yml -server.http-listen-port=9080",
        "promtail -client.url=http://192.0.2.1:3100/loki/api/v1/push?a=b",
        "x -client.password-file=/etc/pw --token-ttl 5m --password-stdin foo",
        "x -tls.key=/etc/key.pem --monkey=banana --bypass=1 --compass north",
        "vllm serve --max-tokens 4096 --pad-token=<pad> --tokenizer=/models/a",
        "docker run -v /run/secrets:/run/secrets -p 127.0.0.1:80:80 --user 1000:1000 image:tag",
        "ssh git@host:path",
        "x --user bob -u /etc/a:b --author me:too",
        "x -auth.enabled=false",
        "env AWS_ACCESS_KEY_ID=AKIA x",
        "uvicorn app:main --host 0.0.0.0 [::1]:9080 /home/me/secret:notes",
        "python3 -m http.server 9099 --bind 127.0.0.1",
        "nginx: master process /usr/sbin/nginx -g daemon on;",
    ],
)
def test_the_harmless_is_shown(words):
    assert masked(words.split()) == words


def test_what_is_shown_is_one_line_of_some_length():
    assert masked(["a\nb\x1b[2J", "c"]) == "a b [2J c"
    assert masked(["x", "a" * masking.LENGTH, "b"]) == "x …"
    assert masked(["a" * masking.LENGTH]) == "…"
    assert masked([]) == ""


@pytest.mark.parametrize("word", ["a.b:", "-a.b-c", "a%", "\"'", "Authorization: ", "://", "aB", "bearer ", "'a "])
def test_no_command_line_takes_long(word):
    begun = time.monotonic()
    masked([word * (masking.LENGTH // len(word) - 1)])
    masked([word] * 100_000)
    assert time.monotonic() - begun < 5


def test_process_that_holds_a_port_is_shown_without_its_password():
    program = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", program, "--token", HIDDEN, f"http://u:{HIDDEN}@h"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            holder = linux.listener(int(process.stdout.readline()))
        finally:
            process.kill()
    assert holder["pid"] == process.pid
    assert HIDDEN not in holder["command"]
    assert holder["command"].endswith("--token *** http://***@h")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert linux.listener(server.getsockname()[1])["pid"] == os.getpid()


def test_foreign_agent_is_shown_without_its_password(monkeypatch):
    monkeypatch.setattr(host, "processes_of", lambda _: [7])
    monkeypatch.setattr(host.system, "command_line", lambda _: ["promtail", f"-client.url=http://u:{HIDDEN}@h"])
    monkeypatch.setattr(host.Service, "services_of", lambda *_: [])
    (stray,) = foreign_agents.running(
        promtail_agent, lambda _: (0, "", ""), SimpleNamespace(name="promtail", processes=list)
    )
    assert stray.command == "promtail -client.url=http://***@h"
    assert stray.shown() == {"pid": 7, "command": "promtail -client.url=http://***@h"}
