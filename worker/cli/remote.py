"""``inspect``, ``control``, ``nodes`` and ``status``: nodes asked and told from a terminal.

They need the broker's URL and nothing else: no application is imported. What commands there are,
what their arguments are called, and which of them only look, the nodes say themselves: ``inspect``
never sends what changes something.

`queue_core.worker.cli.answers` prints what they answered.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from queue_core import ConfigError, Connection, QueueCoreError, counted
from queue_core.mailbox import Answers, Mailbox, SigningKey
from queue_core.worker.cli.answers import (
    commands_of,
    described,
    end,
    nobody,
    print_answers,
    print_answers_json,
    print_commands,
)
from queue_core.worker.cli.arguments import check_kind, in_order, read_arguments
from queue_core.worker.cli.errors import NOTHING, USAGE, CommandError
from queue_core.worker.cli.options import (
    broker_option,
    broker_or_word,
    json_option,
    print_json,
    printable,
    timeout_option,
)
from queue_core.worker.cli.types import names, some_name
from queue_core.worker.suggestions import hint
from queue_core.worker.variables import URL_VARIABLE

NAMESPACE: Final = "queue-core"
LISTING: Final = 1.0
"""Seconds that ``--help`` waits for nodes that say what they can be asked."""
CONNECT: Final = 5.0
"""Seconds that connecting may take besides ``--timeout``."""
LOOKING: Final = frozenset(
    "active active_queues clock commands conf ping query_task registered report reserved revoked "
    "scheduled stats".split()
)
"""What only looks, on our nodes as on celery's; ``inspect`` asks nodes about other commands."""

_BROKER: Final = "queue_core.broker"

C = TypeVar("C", bound=Callable[..., Any])


def _common(command: C) -> C:
    """Add the options that all of these commands have."""
    for option in (
        json_option,
        timeout_option("1s", "How long to wait for answers."),
        click.option(
            "-N",
            "--namespace",
            metavar="NAME",
            default=NAMESPACE,
            show_default=True,
            type=some_name,
            help="Whose nodes; celery's are in the namespace celery.",
        ),
    ):
        command = option(command)
    return command


def _addressed(command: C) -> C:
    """Add the options that say which nodes are meant, and who asks."""
    for option in reversed(
        (
            click.option(
                "-d",
                "--node",
                "destinations",
                type=names,
                multiple=True,
                metavar="NODE[,NODE...]",
                help="These nodes only; may be given more than once.",
            ),
            click.option("--match", metavar="GLOB", help="Nodes whose names match."),
            click.option(
                "--label",
                "labels",
                multiple=True,
                metavar="KEY=VALUE",
                help="Nodes with this label; with several, those that have all.",
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


class _Listing(click.Command):
    """Its help ends with the commands that nodes have, if a broker is named and one is there."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for the broker first, wherever it stands: ``--help`` ends the parsing."""
        with contextlib.suppress(click.UsageError):
            ctx.meta[_BROKER] = self.make_parser(ctx).parse_args(list(args))[0].get("broker")
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Ask the nodes, for a moment."""
        broker = ctx.meta.get(_BROKER) or os.environ.get(URL_VARIABLE)
        told = Answers()
        if broker:
            with (
                contextlib.suppress(QueueCoreError, CommandError),
                _mailbox(broker, NAMESPACE, LISTING, connect=LISTING) as (box, _),
            ):
                told = box.multi_call("commands", timeout=LISTING)
        found = commands_of(self.name or "", told)
        if found:
            with formatter.section(f"Methods of {counted(len(told), 'node')}"):
                formatter.write_dl(
                    [(printable(one["signature"]), printable(one["help"])) for one in found]
                )


@click.command(cls=_Listing)
@click.argument("method", required=False)
@click.argument("arguments", nargs=-1)
@broker_option
@_addressed
@_common
def inspect(**options: Any) -> None:
    """Ask nodes something: ping, stats, active ... Without METHOD, list what they can be asked.

    Arguments are written as words, in order, or as NAME=TEXT, or NAME:=JSON. Where a broker is
    named, --help lists the methods of its nodes, too.

    Exit code 0 if all answered, 3 if only some did, 4 if nobody, 1 if it failed on each, 77 if each
    refused.
    """
    _remote("inspect", **options)


@click.command(cls=_Listing)
@click.argument("method", required=False)
@click.argument("arguments", nargs=-1)
@broker_option
@_addressed
@_common
def control(**options: Any) -> None:
    """Tell nodes to do something: revoke ID, shutdown ... Without METHOD, list what they can do.

    Arguments are written as words, in order, or as NAME=TEXT, or NAME:=JSON. Where a broker is
    named, --help lists the methods of its nodes, too.

    Exit code 0 if all did it, 3 if only some did, 4 if nobody answered, 1 if it failed on each, 77
    if each refused.
    """
    _remote("control", **options)


@click.command()
@broker_or_word
@_common
def nodes(broker: str, namespace: str, timeout: float, as_json: bool) -> None:
    """List the nodes that are there, with their labels. Exit code 4 if there is none.

    One that stands still is there until its lease ends. On RabbitMQ, where nodes know of one
    another and nobody else does, it has no labels then, and is missing if no node answers.
    """
    with _mailbox(broker, namespace, timeout) as (box, place):
        found = box.nodes(timeout=timeout)
    if as_json:
        print_json(**place, nodes=dict(sorted(found.items())))
    for name, labels in sorted(found.items()) if not as_json else ():
        words = " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        click.echo(printable(f"{name}  {words}".rstrip()))
    if not found:
        raise nobody(place)


@click.command()
@broker_or_word
@_common
def status(broker: str, namespace: str, timeout: float, as_json: bool) -> None:
    """Show which nodes answer, and how quickly.

    Exit code 0 if all answer, 3 if only some do, 4 if nobody.
    """
    took: dict[str, float] = {}
    with _mailbox(broker, namespace, timeout) as (box, place):
        answers = box.multi_call("ping", timeout=timeout, limit=1)  # opens what answers come by
        if answers.heard:
            begun = time.perf_counter()
            answers = box.multi_call(
                "ping",
                timeout=timeout,
                callback=lambda node, _: took.update({node: time.perf_counter() - begun}),
            )
    if as_json:
        times = {node: round(seconds * 1000, 1) for node, seconds in sorted(took.items())}
        missing = sorted(answers.missing)
        print_json(**place, answered_ms=times, missing=missing)
    else:
        click.echo(f"broker  {place['broker']}")
        for node, seconds in sorted(took.items()):
            click.echo(printable(f"{node}  answers after {seconds * 1000:.1f} ms"))
        for node in sorted(answers.missing):
            click.echo(printable(f"{node}  does not answer within {timeout:g} s"))
        nodes_here = counted(len(took) + len(answers.missing), "node")
        click.echo(f"{len(took)} of {nodes_here} answered")
    end(answers, place)


@contextmanager
def _mailbox(
    broker: str,
    namespace: str,
    timeout: float,
    key: SigningKey | None = None,
    *,
    connect: float = CONNECT,
) -> Iterator[tuple[Mailbox, dict[str, str]]]:
    """Connect and open a mailbox; yield it and where that is, without the broker's password."""
    patience = max(timeout, connect)
    with Connection(broker, timeout=patience, connect_timeout=patience, create=False) as connection:
        if not connection.features.shared:
            raise CommandError(
                f"there are no nodes but a program's own at {connection.url}",
                "no other process sees that broker",
                "sqlite:///queue.db, or the URL of a server",
                USAGE,
            )
        connection.connect()
        with _wrong_usage():
            opened = Mailbox(namespace, connection, key=key)
        with opened as box:
            yield box, {"broker": connection.url, "namespace": namespace}


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """What an open mailbox refuses to send was typed wrongly."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


class _Asking(msgspec.Struct, frozen=True):
    """Who is meant, and how long to wait: what each call of one command line has in common."""

    box: Mailbox
    place: dict[str, str]
    timeout: float
    destinations: tuple[str, ...] | None
    where: dict[str, Any]

    def ask(self, method: str, arguments: dict[str, Any], first: int | None = None) -> Answers:
        """Send a command and wait for the answers."""
        if self.destinations:
            return self.box.call(self.destinations, method, arguments, self.timeout)
        return self.box.multi_call(method, arguments, self.timeout, first, **self.where)

    def look_up(self, method: str) -> dict[str, Any]:
        """Return what the first node that knows a command says of it.

        Raises CommandError if nobody knows it.
        """
        known = set()
        for _, told in self.box.stream(
            "commands", timeout=self.timeout, destinations=self.destinations, **self.where
        ):
            for found in described(told):
                if method in (found["name"], found.get("alias")):
                    return found
                known.add(found["name"])
        if not known and not self.box.nodes(self.timeout):
            raise nobody(self.place)
        if not known:
            raise CommandError(
                "no node answered",
                f"they were asked what {printable(method)!r} is and takes",
                "a longer wait: -t 10s; control asks nothing if arguments are NAME=TEXT",
                NOTHING,
            )
        raise CommandError(
            f"no node knows a command {printable(method)!r}{hint(method, known)}",
            advice="queue-core inspect, or control, without a METHOD lists them",
            code=USAGE,
        )


def _remote(
    kind: str,
    *,
    method: str | None,
    arguments: tuple[str, ...],
    destinations: tuple[tuple[str, ...], ...],
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
    if destinations and (match or labels or first):
        raise click.UsageError("-d names the nodes; --match, --label and --first pick among all")
    where = {"match": match, "labels": _labels(labels)}
    named, words = read_arguments(arguments)
    key = _key(key_name, key_file)
    with _mailbox(broker, namespace, timeout, key) as (box, place), _wrong_usage():
        named_nodes = tuple(name for group in destinations for name in group)
        asking = _Asking(box, place, timeout, named_nodes or None, where)
        if method is None:
            answers = asking.ask("commands", {}, first)
        else:
            if words or (kind == "inspect" and method not in LOOKING):
                found = asking.look_up(method)
                check_kind(kind, found)
                named |= in_order(found, words, named)
            answers = asking.ask(method, named, first)
    if first is not None and len(answers.heard) >= first:
        answers.missing = set()
    if method is None:
        print_commands(kind, answers, place if as_json else None)
    elif as_json:
        print_answers_json(answers, method, place)
    else:
        print_answers(answers)
    end(answers, place, first=first, picked=bool(destinations or match or labels))


def _key(name: str | None, file: Path | None) -> SigningKey | None:
    if name is None and file is None:
        return None
    if name is None or file is None:
        raise click.UsageError("a signed command needs both --key-name and --key-file")
    return SigningKey.from_file(name, file)


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for item in given:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise click.UsageError(f"{item!r} is no label; write KEY=VALUE")
        if key in labels:
            raise click.UsageError(f"the label {key!r} is given twice")
        labels[key] = value
    return labels


commands = {
    "inspect": inspect,
    "control": control,
    "nodes": nodes,
    "status": status,
}
