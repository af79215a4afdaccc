"""What commands have in common: how they name the broker, how long they wait, how they print.

Every command takes the broker as ``-b URL`` or from ``QUEUE_CORE_URL``. Those that look at a broker
and need nothing else take it as a word too: ``queue-core doctor URL``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from queue_core.worker.cli.errors import USAGE, CommandError
from queue_core.worker.cli.types import patience
from queue_core.worker.variables import FILE_VARIABLE

SCHEMA = 1
"""The number of what ``--json`` prints; it grows when a field changes or goes."""

C = TypeVar("C", bound=Callable[..., Any])

_WORD = "queue_core.url"


def broker_option(command: C) -> C:
    """Add ``-b URL``; the command gets it as ``broker``."""
    return click.option(
        "-b",
        "--broker",
        envvar="QUEUE_CORE_URL",
        metavar="URL",
        callback=_broker,
        help="The broker. [QUEUE_CORE_URL]",
    )(command)


def broker_or_word(command: C) -> C:
    """Add ``-b URL``, and the same as the only word of the command."""
    word = click.argument(
        "url", required=False, is_eager=True, expose_value=False, callback=_remember
    )
    return word(broker_option(command))


def use_file(path: str | None) -> None:
    """Let this process, and those that it starts, read their settings from this file, if any."""
    if path is not None:
        os.environ[FILE_VARIABLE] = os.path.abspath(path)


def _with_this_folder(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return value


def _app_option(required: bool) -> Callable[[C], C]:
    return click.option(
        "-A",
        "--app",
        required=required,
        is_eager=True,
        envvar="QUEUE_CORE_APP",
        metavar="MODULE:APP",
        callback=_with_this_folder,
        help="The app.",
    )


app_option = _app_option(required=False)
"""Add ``-A MODULE:APP``; the command gets it as ``app``, and the folder is in ``sys.path``."""

needed_app_option = _app_option(required=True)
"""The same where there is nothing to do without."""


def config_option(command: C) -> C:
    """Add ``--config FILE``, which is in use when the command runs."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=lambda _context, _option, value: use_file(value),
        show_default="queue-core.toml, or tool.queue-core in pyproject.toml",
        help="A TOML file with settings.",
    )(command)


def timeout_option(default: str, words: str) -> Callable[[C], C]:
    """Add ``--timeout``; the command gets seconds."""
    return click.option(
        "-t",
        "--timeout",
        type=patience,
        metavar="DURATION",
        default=default,
        show_default=True,
        help=words,
    )


def json_option(command: C) -> C:
    """Add ``--json``; the command gets ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(
        command
    )


def print_json(**fields: Any) -> None:
    """Print what ``--json`` promises."""
    click.echo(json.dumps({"schema": SCHEMA, **fields}))


def printable(text: str) -> str:
    """Return what others wrote without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _remember(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    context.meta[_WORD] = value


def _broker(context: click.Context, option: click.Parameter, value: str | None) -> str:
    word: str | None = context.meta.get(_WORD)
    typed = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if word and value and typed:
        raise click.UsageError("the broker is named twice: as a word, and with -b", context)
    broker = word or value
    if not broker:
        raise CommandError(
            "no broker is named",
            advice=f"{context.command_path} -b URL, or QUEUE_CORE_URL in the environment",
            code=USAGE,
        )
    return broker
