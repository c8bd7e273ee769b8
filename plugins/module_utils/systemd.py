# Copyright (c) SmolCluster contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A service of systemd: its state, and the few changes that a deployment needs."""

from __future__ import annotations

import os
from collections.abc import Callable

Run = Callable[[list[str]], tuple[int, str, str]]


class Systemd:
    """One service.

    Parameters:
        run: function that runs a command (list of words) and returns its exit code, output and errors.
        name: name of the unit without `.service`.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self.name = name

    @staticmethod
    def present() -> bool:
        """Whether systemd is the init system of this host (sd_booted(3))."""
        return os.path.isdir("/run/systemd/system")

    def state(self) -> dict[str, str]:
        """Properties of the unit as `systemctl show` names them."""
        wanted = "LoadState,ActiveState,MainPID,UnitFileState,NRestarts,FragmentPath"
        _, out, _ = self._run(["systemctl", "show", self.name, f"--property={wanted}"])
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def pid(self) -> int:
        """Main process of the service; 0 when it does not run."""
        return int(self.state().get("MainPID") or 0)

    def do(self, *words: str) -> None:
        """Run `systemctl` with these words.

        Raises:
            RuntimeError: it failed; holds what it said.
        """
        code, out, err = self._run(["systemctl", *words])
        if code:
            raise RuntimeError(f"systemctl {' '.join(words)}: {(err or out).strip()}")

    def journal(self, lines: int = 15, seconds: int | None = None) -> str:
        """Last lines of the service's own output.

        Parameters:
            lines: how many at most.
            seconds: how old they may be; none is any age.
        """
        words = ["journalctl", "--unit", self.name, f"--lines={lines}", "--no-pager", "--output=cat"]
        _, out, _ = self._run([*words, *([f"--since=-{seconds}s"] if seconds else [])])
        return out.strip()
