"""``inspect``, ``control``, ``nodes`` and ``status``: nodes asked and told from a terminal.

They need the broker's URL and nothing else: no application is imported. What commands there are,
and what their arguments are called, the nodes say themselves.

Exit code 0 if every node that was meant answered, 3 if only some did or some with an error, 4 if
there was nobody.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from queue_core import Connection
from queue_core.mailbox import Answers, Mailbox, SigningKey
from queue_core.worker.cli.errors import CommandError
from queue_core.worker.cli.types import duration, names

SCHEMA = 1
PARTLY, NOBODY = 3, 4
NAMESPACE = "queue-core"

C = TypeVar("C", bound=Callable[..., Any])

_ARGUMENT = re.compile(r"(\w+)(:?=)(.*)", re.DOTALL)


def _common(command: C) -> C:
    """Add the options that all of these commands have."""
    for option in reversed(
        (
            click.option(
                "-b",
                "--broker",
                required=True,
                envvar="QUEUE_CORE_URL",
                metavar="URL",
                help="The broker.",
            ),
            click.option(
                "-N",
                "--namespace",
                default=NAMESPACE,
                show_default=True,
                help="Whose nodes; celery's are in the namespace celery.",
            ),
            click.option(
                "-t",
                "--timeout",
                type=duration,
                default="1s",
                show_default=True,
                help="How long to wait in all.",
            ),
            click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        )
    ):
        command = option(command)
    return command


def _addressed(command: C) -> C:
    """Add the options that say which nodes are meant."""
    for option in reversed(
        (
            click.option(
                "-d",
                "--node",
                "destinations",
                type=names,
                metavar="NODE[,NODE...]",
                help="These nodes only.",
            ),
            click.option("--match", metavar="GLOB", help="Nodes whose names match."),
            click.option(
                "--label",
                "labels",
                multiple=True,
                metavar="KEY=VALUE",
                help="Nodes with this label.",
            ),
            click.option(
                "--first", type=click.IntRange(1), metavar="N", help="Stop after N answers."
            ),
            click.option("--key-name", metavar="NAME", help="Whose key signs the command."),
            click.option(
                "--key-file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="A file with the secret of that key.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("method", required=False)
@click.argument("arguments", nargs=-1)
@_addressed
@_common
def inspect(method: str | None, **options: Any) -> None:
    """Ask nodes something: ping, stats, active ... Without METHOD, list what they can be asked.

    Arguments are written as words, in order, or as NAME=TEXT, or NAME:=JSON.
    """
    _remote("inspect", method, **options)


@click.command()
@click.argument("method", required=False)
@click.argument("arguments", nargs=-1)
@_addressed
@_common
def control(method: str | None, **options: Any) -> None:
    """Tell nodes to do something: revoke ID, shutdown ... Without METHOD, list what they can do.

    Arguments are written as words, in order, or as NAME=TEXT, or NAME:=JSON.
    """
    _remote("control", method, **options)


@click.command()
@_common
def nodes(broker: str, namespace: str, timeout: float, as_json: bool) -> None:
    """List the nodes that are there, with their labels."""
    with _mailbox(broker, namespace, timeout) as (box, url):
        found = box.nodes(timeout=timeout)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "broker": url, "nodes": found}))
    for name, labels in sorted(found.items()) if not as_json else ():
        words = " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        click.echo(f"{name}  {words}".rstrip())
    _exit(bool(found), complete=True, broker=url, namespace=namespace)


@click.command()
@_common
def status(broker: str, namespace: str, timeout: float, as_json: bool) -> None:
    """Show which nodes answer, and how quickly."""
    with _mailbox(broker, namespace, timeout) as (box, url):
        begun, took = time.perf_counter(), {}
        answers = box.multi_call(
            "ping",
            timeout=timeout,
            callback=lambda node, value: took.update({node: time.perf_counter() - begun}),
        )
    if as_json:
        times = {node: round(seconds * 1000, 1) for node, seconds in took.items()}
        click.echo(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "broker": url,
                    "answered_ms": times,
                    "missing": sorted(answers.missing),
                }
            )
        )
    else:
        click.echo(f"broker  {url}")
        for node, seconds in sorted(took.items()):
            click.echo(f"{node}  answers after {seconds * 1000:.1f} ms")
        for node in sorted(answers.missing):
            click.echo(f"{node}  does not answer within {timeout:g} s")
        click.echo(f"{len(took)} of {len(took) + len(answers.missing)} nodes answer")
    _exit(bool(answers.heard), complete=answers.complete, broker=url, namespace=namespace)


@contextmanager
def _mailbox(
    broker: str, namespace: str, timeout: float, key: SigningKey | None = None
) -> Iterator[tuple[Mailbox, str]]:
    """Open a mailbox; yield it and the broker's URL without its password."""
    patience = max(timeout, 5.0)
    with (
        Connection(broker, timeout=patience, connect_timeout=patience) as connection,
        Mailbox(namespace, connection, key=key) as box,
    ):
        yield box, connection.url


def _remote(
    kind: str,
    method: str | None,
    *,
    arguments: tuple[str, ...],
    destinations: tuple[str, ...] | None,
    match: str | None,
    labels: tuple[str, ...],
    first: int | None,
    key_name: str | None,
    key_file: Path | None,
    broker: str,
    namespace: str,
    timeout: float,
    as_json: bool,
) -> None:
    if (key_name is None) != (key_file is None):
        raise click.UsageError("a signed command needs both --key-name and --key-file")
    key = SigningKey(key_name, key_file.read_text().strip()) if key_name and key_file else None
    where: dict[str, Any] = {"match": match, "labels": dict(_label(item) for item in labels)}
    with _mailbox(broker, namespace, timeout, key) as (box, url):

        def ask(name: str, given: dict[str, Any]) -> Answers:
            if destinations:
                return box.call(destinations, name, given, timeout)
            return box.multi_call(name, given, timeout, first, **where)

        if method is None:
            _list(kind, ask("commands", {}), as_json=as_json)
            return
        named, words = _arguments(arguments)
        if words:
            named |= _in_order(method, words, ask("commands", {}))
        answers = ask(method, named)
    _show(answers, as_json=as_json)
    if first is not None and len(answers.heard) >= first:
        answers.missing = set()
    _exit(bool(answers.heard), complete=answers.complete, broker=url, namespace=namespace)


def _arguments(given: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return the named arguments and the others."""
    named: dict[str, Any] = {}
    words = []
    for item in given:
        match = _ARGUMENT.fullmatch(item)
        if match is None:
            words.append(item)
            continue
        name, sign, text = match.groups()
        if sign == "=":
            named[name] = text
            continue
        try:
            named[name] = json.loads(text)
        except json.JSONDecodeError as error:
            raise click.UsageError(f"{item!r}: what follows := is no JSON: {error}") from error
    return named, words


def _in_order(method: str, words: list[str], told: Answers) -> dict[str, Any]:
    """Give words the names that the nodes say the command's arguments have."""
    for commands in told.values():
        for found in commands:
            if method not in (found["name"], found.get("alias")):
                continue
            order, variadic = found["arguments"], found.get("variadic")
            named: dict[str, Any] = dict(zip(order, words, strict=False))
            if variadic in order:
                place = order.index(variadic)
                named = {**dict(zip(order[:place], words, strict=False)), variadic: words[place:]}
            elif len(words) > len(order):
                raise click.UsageError(
                    f"too many words; {method} is called as: {found['signature']}"
                )
            return named
    raise click.UsageError(
        f"no node says what the arguments of {method!r} are called; write them as NAME=TEXT"
    )


def _label(item: str) -> tuple[str, str]:
    key, sign, value = item.partition("=")
    if not sign or not key:
        raise click.UsageError(f"{item!r} is no label; write KEY=VALUE")
    return key, value


def _list(kind: str, told: Answers, *, as_json: bool) -> None:
    """Print the commands that nodes have."""
    kinds = ("inspect",) if kind == "inspect" else ("control", "admin")
    found = {
        command["name"]: command
        for commands in told.values()
        for command in commands
        if command["kind"] in kinds
    }
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "commands": list(found.values())}))
        return
    width = max((len(command["signature"]) for command in found.values()), default=0)
    for _, command in sorted(found.items()):
        click.echo(f"{command['signature']:<{width}}  {command['help']}".rstrip())
    if not told:
        raise CommandError("no node answered", advice="queue-core nodes", code=NOBODY)


def _show(answers: Answers, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "answers": dict(answers),
                    "errors": {node: str(error) for node, error in answers.errors.items()},
                    "refused": answers.refused,
                    "expired": sorted(answers.expired),
                    "missing": sorted(answers.missing),
                    "unknown": sorted(answers.unknown),
                }
            )
        )
        return
    for node, value in answers.items():
        text = json.dumps(value, indent=2, ensure_ascii=False)
        click.echo(f"{node}: {text}")
    for node, error in answers.errors.items():
        click.echo(f"{node}: error: {error}", err=True)
    for node, why in answers.refused.items():
        click.echo(f"{node}: refused: {why}", err=True)
    for words, group in (
        ("got it too late and did not do it", answers.expired),
        ("did not answer in time", answers.missing),
        ("is no node here", answers.unknown),
    ):
        for node in sorted(group):
            click.echo(f"{node}: {words}", err=True)


def _exit(heard: bool, *, complete: bool, broker: str, namespace: str) -> None:  # noqa: FBT001
    if not heard:
        raise CommandError(
            "no node answered",
            f"nobody listens in the namespace {namespace!r} at {broker}",
            "another --namespace, or a longer --timeout",
            NOBODY,
        )
    if not complete:
        raise click.exceptions.Exit(PARTLY)


@click.command()
@click.argument("queue")
@click.option(
    "-b", "--broker", required=True, envvar="QUEUE_CORE_URL", metavar="URL", help="The broker."
)
@click.option("--dry-run", is_flag=True, help="Count, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(queue: str, broker: str, dry_run: bool, yes: bool) -> None:
    """Delete the messages that wait in QUEUE. Those that somebody works on stay.

    Says how many there are, and asks.
    """
    with Connection(broker) as connection:
        waiting = connection.inspect(queue).ready
        click.echo(f"{queue}: {waiting} messages wait")
        if dry_run or not waiting:
            return
        if not yes:
            click.confirm("Delete them? There is no way back.", abort=True, err=True)
        click.echo(f"{queue}: {connection.purge(queue)} deleted")


commands = {
    "inspect": inspect,
    "control": control,
    "nodes": nodes,
    "status": status,
    "purge": purge,
}
