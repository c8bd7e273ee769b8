# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the role makes of the settings for alerts: thresholds in the rules, the contact point, problems."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

CONTACT = "smolcluster-contact"
# Grafana's own contact point, which sends nothing as long as no mail server is set.
DEFAULT_CONTACT = "grafana-default-email"
TYPES = ("webhook", "email", "slack")
# Variable by the uid of the rule whose threshold it is.
THRESHOLDS = {
    "smolcluster-silent": "docker_loki_grafana_alert_silence",
    "smolcluster-errors": "docker_loki_grafana_alert_errors",
    "smolcluster-straggler": "docker_loki_grafana_alert_lag",
}
MAIL = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>.]+")


def rules(text: str, settings: Mapping[str, Any]) -> str:
    """Text of the file with the alert rules, with the thresholds of the user.

    Parameters:
        text: the generated file.
        settings: value by variable, and `wanted`: without it the file removes the rules of an earlier run.
    """
    document = yaml.safe_load(text)
    if not settings["wanted"]:
        uids = [rule["uid"] for group in document["groups"] for rule in group["rules"]]
        gone = {"apiVersion": 1, "deleteRules": [{"orgId": 1, "uid": uid} for uid in uids]}
        return yaml.safe_dump(gone, sort_keys=False)
    for group in document["groups"]:
        for rule in group["rules"]:
            if variable := THRESHOLDS.get(rule["uid"]):
                (step,) = (step for step in rule["data"] if step["model"].get("type") == "threshold")
                step["model"]["conditions"][0]["evaluator"]["params"] = [int(settings[variable])]
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)


def contact_points(settings: Mapping[str, Any]) -> str:
    """Text of the file with the contact point and the policy that sends every alert to it.

    Parameters:
        settings: `wanted` (whether there shall be one), `type` (empty for none) and `address`.
    """
    kind, address = str(settings["type"]) * bool(settings["wanted"]), str(settings["address"]).replace("$", "$$")
    if not kind:
        # One from an earlier run is removed, after nothing refers to it any more.
        document: dict[str, Any] = {
            "apiVersion": 1,
            "resetPolicies": [1],
            "deleteContactPoints": [{"orgId": 1, "uid": CONTACT}],
        }
    else:
        values = {"addresses": address, "singleEmail": True} if kind == "email" else {"url": address}
        receiver = {"uid": CONTACT, "type": kind, "settings": values}
        policy = {
            "orgId": 1,
            "receiver": "SmolCluster",
            "group_by": ["grafana_folder", "alertname"],
            # The first alerts of a failure come as one message.
            "group_wait": "15s",
            "group_interval": "1m",
            "repeat_interval": "4h",
        }
        document = {
            "apiVersion": 1,
            "contactPoints": [{"orgId": 1, "name": "SmolCluster", "receivers": [receiver]}],
            "policies": [policy],
        }
    return yaml.safe_dump(document, sort_keys=False)


def is_url(text: str) -> bool:
    """Whether a text is a URL that Grafana can send to."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not re.search(r"\s", text)
            and parts.port != 0
        )
    except ValueError:
        return False


def contact_problems(kind: str, address: str, smtp: str) -> list[str]:
    """What is wrong with the contact point. The address may hold a secret, so no message shows it."""
    name = "docker_loki_grafana_alert_contact_address"
    if not kind:
        return [
            f"{name} is set, but docker_loki_grafana_alert_contact_type is not. Set it to {', '.join(TYPES)}"
        ] * bool(address)
    if kind not in TYPES:
        return [f"docker_loki_grafana_alert_contact_type is '{kind}'. Set it to {', '.join(TYPES)}, or to '' for none"]
    if kind != "email":
        return [] if is_url(address) else [f"{name} is not a URL. For {kind} it must begin with http:// or https://"]
    problems = []
    if not address or not all(MAIL.fullmatch(one) for one in re.split(r"[;,]\s*", address)):
        problems.append(f"{name} is not an e-mail address. Write name@example.org; separate several by a semicolon")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):[0-9]{1,5}", smtp):
        problems.append(
            f"docker_loki_grafana_smtp_host is '{smtp}', but alerts by e-mail need a mail server. Set it to HOST:PORT"
        )
    return problems


def alert_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings for alerts, as sentences for the user; empty when nothing is.

    Parameters:
        settings: `type`, `address`, `smtp`, `root_url`, and the thresholds by their variables.
    """
    problems = [
        f"{variable} is '{settings[variable]}'; it must be a whole number of at least 1"
        for variable in THRESHOLDS.values()
        if not re.fullmatch(r"[1-9][0-9]{0,8}", str(settings[variable]))
    ]
    root = str(settings["root_url"])
    if root and not is_url(root):
        problems.append(
            f"docker_loki_grafana_grafana_root_url is '{root}', which is not a URL. Write it as "
            "http://controller:3000/, or leave it empty"
        )
    return problems + contact_problems(str(settings["type"]), str(settings["address"]), str(settings["smtp"]))
