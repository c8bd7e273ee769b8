# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Metrics in the text format of Prometheus, which Promtail and Loki serve.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format

Copied unchanged to nodes and to the controller, so it uses the standard library only.
"""

from __future__ import annotations

import re

SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>[-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|Inf)|NaN)(?: -?\d+)?"
)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """The metrics of one answer.

    Parameters:
        text: the answer.
    """

    def __init__(self, text: str) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            match = None if line.startswith("#") else SAMPLE.fullmatch(line)
            if match:
                labels = {
                    key: re.sub(r"\\(.)", self._plain, value) for key, value in LABEL.findall(match["labels"] or "")
                }
                self._samples.append((match["name"], labels, float(match["value"])))

    @staticmethod
    def _plain(escaped: re.Match[str]) -> str:
        return "\n" if escaped[1] == "n" else escaped[1]

    def total(self, name: str) -> float:
        """Sum over all samples of a metric; 0 without samples."""
        return sum(value for sample, _labels, value in self._samples if sample == name)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums over the samples of a metric, by the value of a label."""
        sums: dict[str, float] = {}
        for sample, labels, value in self._samples:
            if sample == name:
                sums[labels.get(label, "")] = sums.get(labels.get(label, ""), 0) + value
        return sums
