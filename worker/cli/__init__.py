"""The command ``queue-core``.

Each command is imported when it is called, so that ``--help`` is quick and loads no driver. Results
go to stdout, everything else to stderr. An error is one to three lines - what, because, try -
without a traceback, and ends with the exit code that `queue_core.worker.cli.errors` gives it.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from typing import NoReturn

import click

from queue_core import __version__
from queue_core.worker.cli.errors import TERMINATED, report
from queue_core.worker.suggestions import hint

# name -> module with the command, and what it says of itself in the list
COMMANDS = {
    "worker": ("queue_core.worker.cli.worker", "Run tasks from queues."),
    "demo": ("queue_core.worker.cli.demo", "See it work: many small tasks, and one killed worker."),
    "features": ("queue_core.worker.cli.look", "Show what a broker can and cannot do."),
    "doctor": ("queue_core.worker.cli.doctor", "Try a broker, and say what it keeps."),
    "inspect": ("queue_core.worker.cli.remote", "Ask nodes something: ping, stats, active ..."),
    "control": ("queue_core.worker.cli.remote", "Tell nodes to do something: revoke, shutdown."),
    "nodes": ("queue_core.worker.cli.remote", "List the nodes that are there."),
    "status": ("queue_core.worker.cli.remote", "Show which nodes answer, and how quickly."),
    "purge": ("queue_core.worker.cli.purge", "Delete the messages that wait in a queue."),
    "db": ("queue_core.worker.cli.db", "Look at a database's tables; make or upgrade them."),
    "graph": ("queue_core.worker.cli.graph", "Show the steps of a worker, in their order."),
    "config": ("queue_core.worker.cli.config", "Show or check settings, and where they come from."),
    "route": ("queue_core.worker.cli.route", "Explain which queue a task goes to, and why."),
    "explain": ("queue_core.worker.cli.look", "Say in words what a broker URL means."),
}


class _Commands(click.Group):
    """Finds commands by name without importing the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            ctx.fail(f"there is no command {cmd_name!r}{hint(cmd_name, COMMANDS)}")
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.commands[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="queue-core")
def cli() -> None:
    """Messaging and tasks on RabbitMQ, Redis, SQL databases and memory."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit the process with its code."""
    _fill_standard_streams()
    logging.lastResort = logging.NullHandler()  # commands say what matters; the worker has a log
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # no terminal is too old for an answer
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = cli.main(
            arguments, "queue-core", standalone_mode=False, auto_envvar_prefix="QUEUE_CORE"
        )
    except BaseException as error:
        code = report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _fill_standard_streams() -> None:
    """Open what is closed of 0, 1 and 2, or the next socket would be taken for it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def _terminated(_number: int, _frame: object) -> NoReturn:
    sys.exit(TERMINATED)  # as an exception, so that everything is cleaned up
