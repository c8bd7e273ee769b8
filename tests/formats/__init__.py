"""Tests of the format presets with the agent's own program."""
