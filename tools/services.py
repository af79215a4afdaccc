"""The servers that the integration tests need, from the command line.

    services.py up                  start detached, write .services/env, print it
    services.py down                stop what `up` started
    services.py run -- COMMAND      start, run COMMAND with the urls in its environment, stop

The package `servers` says where they come from. Run it with the Python of .venv.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from processes import contained
from servers.running import down, running, up
from servers.service import ServiceError

ROOT = Path(__file__).resolve().parent.parent
UNAVAILABLE = 69  # the exit code of a missing service, as in sysexits.h


def _up(folder: Path) -> int:
    up(folder)
    sys.stdout.write((folder / "env").read_text(encoding="utf-8"))
    return 0


def _down(folder: Path) -> int:
    down(folder)
    return 0


def _run(folder: Path, command: list[str]) -> int:
    with running(folder) as servers:
        environment = dict(os.environ)
        for server in servers.values():
            environment.update(server.environment)
        return contained(command, environment, None)


def _interrupt(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: list[str]) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="services.py", description="Servers for the integration tests."
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".services", help="default: .services"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start detached and write FOLDER/env")
    commands.add_parser("down", help="stop what up started")
    runner = commands.add_parser("run", help="start, run a command, stop")
    runner.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if options.command == "up":
            return _up(folder)
        if options.command == "down":
            return _down(folder)
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        if not argv:
            parser.error("run needs a command")
        return _run(folder, argv)
    except ServiceError as error:
        print(f"cause: {error.cause}\nnext:  {error.remedy}", file=sys.stderr)
        return UNAVAILABLE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
