"""``queue-core graph``: the steps that workers are made of, and the order of their start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping

import click

from queue_core.worker.blueprint import Step, arrange
from queue_core.worker.cli.types import one_of
from queue_core.worker.consumer.consumer import STEPS as CONSUMER
from queue_core.worker.locate import load_app
from queue_core.worker.runner import STEPS as WORKER

Arranged = Mapping[str, tuple[type[Step], frozenset[str]]]


@click.command()
@click.argument("blueprint", type=one_of(["worker", "consumer"]), required=False)
@click.option(
    "-A",
    "--app",
    envvar="QUEUE_CORE_APP",
    metavar="MODULE:APP",
    help="With the steps that this app adds.",
)
@click.option("--dot", is_flag=True, help="For graphviz: queue-core graph --dot | dot -Tsvg.")
def graph(blueprint: str | None, app: str | None, dot: bool) -> None:
    """Show the steps of a worker, and of the consumer inside its last one.

    They start from top to bottom, and stop from bottom to top.
    """
    given = {"worker": list[str | type[Step]](WORKER), "consumer": list[str | type[Step]](CONSUMER)}
    if app is not None:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.insert(0, os.getcwd())
        for name, steps in load_app(app).steps.items():
            given[name] += steps
    arranged = {name: arrange(steps) for name, steps in given.items() if blueprint in (None, name)}
    for line in _dot(arranged) if dot else _tree(arranged):
        click.echo(line)


def _tree(blueprints: Mapping[str, Arranged]) -> Iterator[str]:
    for name, arranged in blueprints.items():
        yield name
        width = max(map(len, arranged))
        for number, (step, (kind, needs)) in enumerate(arranged.items(), 1):
            branch = "└─" if number == len(arranged) else "├─"
            after = "last" if kind.last else ", ".join(n for n in arranged if n in needs)
            after = f"after {after}" if after and not kind.last else after
            words = (kind.__doc__ or "").partition("\n")[0]
            yield f"{branch} {step:<{width}}  {words:<71} {after}".rstrip()


def _dot(blueprints: Mapping[str, Arranged]) -> Iterator[str]:
    yield "digraph steps {"
    yield "  node [shape=box];"
    for name, arranged in blueprints.items():
        yield f'  subgraph "cluster_{name}" {{'
        yield f'    label="{name}";'
        for step, (_, needs) in arranged.items():
            yield f'    "{name}.{step}" [label="{step}"];'
            for other in sorted(needs):
                yield f'    "{name}.{other}" -> "{name}.{step}";'
        yield "  }"
    yield "}"


commands = {"graph": graph}
