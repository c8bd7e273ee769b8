"""The contact point of alerts and the checks of its settings."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.smolcluster.logging.plugins.plugin_utils import alerts

GOOD = {"type": "", "address": "", "smtp": "", "root_url": ""} | dict.fromkeys(alerts.THRESHOLDS.values(), 120)
ADDRESS, TYPE = "docker_loki_grafana_alert_contact_address", "docker_loki_grafana_alert_contact_type"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"type": "webhook", "address": "http://192.0.2.7:9000/alerts?a=b"},
        {"type": "slack", "address": "https://hooks.example.org/services/T0/B0/x"},
        {"type": "email", "address": "a@example.org; b@example.org", "smtp": "mail.example.org:587"},
        {"type": "email", "address": "a@example.org", "smtp": "[2001:db8::1]:25"},
        {"root_url": "https://logs.example.org/grafana/"},
        {"docker_loki_grafana_alert_lag": "75"},
    ],
)
def test_good_settings_have_no_problem(settings):
    assert alerts.alert_problems(GOOD | settings) == []


@pytest.mark.parametrize(
    ("settings", "cause", "way_out"),
    [
        ({"type": "pager", "address": "x"}, f"{TYPE} is 'pager'", "webhook, email, slack"),
        ({"address": "http://192.0.2.7/"}, f"{ADDRESS} is set", f"{TYPE} is not"),
        ({"type": "webhook"}, f"{ADDRESS} is not a URL", "http://"),
        ({"type": "webhook", "address": "192.0.2.7:9000"}, f"{ADDRESS} is not a URL", "http://"),
        ({"type": "webhook", "address": "http://"}, f"{ADDRESS} is not a URL", "http://"),
        ({"type": "webhook", "address": "http://host:port/"}, f"{ADDRESS} is not a URL", "http://"),
        ({"type": "slack", "address": "#training"}, f"{ADDRESS} is not a URL", "https://"),
        ({"type": "slack", "address": "https://example.org/a b"}, f"{ADDRESS} is not a URL", "https://"),
        ({"type": "email", "address": "me", "smtp": "m:25"}, f"{ADDRESS} is not an e-mail address", "name@example.org"),
        ({"type": "email", "address": "a@example.org, b", "smtp": "m:25"}, "not an e-mail address", "semicolon"),
        ({"type": "email", "address": "a@example.org"}, "smtp_host is ''", "HOST:PORT"),
        ({"type": "email", "address": "a@example.org", "smtp": "mail"}, "smtp_host is 'mail'", "HOST:PORT"),
        ({"root_url": "controller"}, "root_url is 'controller'", "http://controller:3000/"),
        ({"docker_loki_grafana_alert_silence": "two"}, "alert_silence is 'two'", "whole number"),
        ({"docker_loki_grafana_alert_errors": 0}, "alert_errors is '0'", "at least 1"),
        ({"docker_loki_grafana_alert_lag": "1.5"}, "alert_lag is '1.5'", "whole number"),
    ],
)
def test_bad_settings_are_named_with_the_way_out(settings, cause, way_out):
    (problem,) = alerts.alert_problems(GOOD | settings)
    assert cause in problem
    assert way_out in problem


def test_an_address_with_a_token_is_in_no_message():
    (problem,) = alerts.alert_problems(GOOD | {"type": "slack", "address": "hooks.example.org/secret-token"})
    assert "secret-token" not in problem


def contact(kind: str, address: str) -> dict:
    """Document for a contact point."""
    return yaml.safe_load(alerts.contact_points({"wanted": True, "type": kind, "address": address}))


def test_without_a_type_the_contact_point_of_an_earlier_run_is_removed():
    document = contact("", "")
    assert document["deleteContactPoints"] == [{"orgId": 1, "uid": alerts.CONTACT}]
    assert document["resetPolicies"] == [1]
    assert "contactPoints" not in document


def test_without_dashboards_the_contact_point_of_an_earlier_run_is_removed():
    settings = {"wanted": False, "type": "webhook", "address": "http://192.0.2.7/"}
    assert yaml.safe_load(alerts.contact_points(settings)) == contact("", "")


def test_every_alert_goes_to_the_contact_point():
    document = contact("webhook", "http://192.0.2.7/$x")
    (point,) = document["contactPoints"]
    (receiver,) = point["receivers"]
    # Grafana replaces $NAME, and $$ by one $.
    assert receiver["settings"] == {"url": "http://192.0.2.7/$$x"}
    (policy,) = document["policies"]
    assert policy["receiver"] == point["name"]
    (mail,) = contact("email", "a@example.org")["contactPoints"]
    assert mail["receivers"][0]["settings"]["addresses"] == "a@example.org"
