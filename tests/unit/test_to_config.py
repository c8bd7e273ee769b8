"""The configuration of an agent as text."""

import yaml
from ansible_collections.smolcluster.logging.plugins.filter.to_config import to_config

CONFIG = {
    "server": {"port": 9080, "host": "127.0.0.1"},
    "layouts": ["2006-01-02 15:04:05", "2006-01-02T15:04:05Z07:00", "1e3", "yes", "0644", "", "a: b", "\u00e4\t\\x"],
    "none": None,
    "wait": "50ms",
    "long": "x" * 300 + " " + "y" * 300,
}


def test_text_has_the_same_data_in_the_same_order():
    text = to_config(CONFIG)
    assert yaml.safe_load(text) == CONFIG
    assert list(yaml.safe_load(text)) == list(CONFIG)


def test_each_line_of_the_comment_is_a_comment():
    text = to_config({"a": 1}, "first\nsecond")
    assert text == "# first\n# second\na: 1\n"
