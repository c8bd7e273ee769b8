"""Command line of the container lab: `python -m lab up|down|artifacts|images`."""

from __future__ import annotations

import argparse
import sys

from lab import engine, hosts, images
from lab.shell import LabError


def main() -> int:
    """Run a command; an error that the user can fix is one message, not a traceback."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the hosts up; deploys nothing; safe to repeat")
    up.add_argument("--mac", action="store_true", help="with mac1, a container that plays a Mac")
    commands.add_parser("down", help="remove every container, network and volume that `up` made")
    commands.add_parser("artifacts", help="fill the artifacts folder")
    commands.add_parser("images", help="make the images of the hosts")
    arguments = parser.parse_args()
    command = arguments.command
    try:
        if command == "artifacts":
            hosts.write_variables()
        elif command == "images":
            images.all_hosts()
        elif command == "up":
            hosts.up(arguments.mac)
        elif engine.answers():
            hosts.down()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
