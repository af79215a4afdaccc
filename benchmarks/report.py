"""Results as text: tables for a terminal and for Markdown, and the block in the README. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.cases import BROKERS
from benchmarks.goals import GOALS
from benchmarks.results import Results, Row

BEGIN, END = (
    "<!-- begin of what the benchmark wrote -->",
    "<!-- end of what the benchmark wrote -->",
)
Table = list[list[str]]


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}"


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By broker, then by case as they were asked; contestants as they took part."""
    rows = list(rows)
    cases = list(dict.fromkeys(row.case for row in rows))
    return sorted(rows, key=lambda row: (BROKERS.index(row.broker), cases.index(row.case)))


def measured(results: Results) -> Table:
    """One line for each row."""
    head = ["broker", "case", "contestant", "median", "unit", "spread", "ours / it", "more"]
    lines = [head]
    for row in in_order(results.rows):
        ratio = None
        if row.contestant != "ours":
            ratio = results.ratio(row.case, row.broker, "ours", row.contestant)
        spread = row.spread()
        lines.append(
            [
                row.broker,
                row.case,
                row.contestant,
                row.error or number(row.median()),
                row.unit,
                "" if spread is None else f"{spread:.0%}",
                "" if ratio is None else number(ratio),
                _more(row),
            ]
        )
    return lines


def _more(row: Row) -> str:
    names = {
        "cpu_us": "{} us CPU each",
        "p99": "p99 {}",
        "worst": "worst {}",
        "whole": "whole {}",
        "alone": "alone {} msg/s",
        "commands": "{} commands/s",
        "single": "one alone {}",
        "least": "least {} of the mean",
        "round_trips": "{} round trips/s",
        "cpu_parent_us": "{} us CPU in the parent",
        "cpu_children_us": "{} us in children",
        "idle_cpu": "{} % CPU",
        "ready": "ready in {} s",
    }
    return ", ".join(
        text.format(number(row.median(name)))
        for name, text in names.items()
        if row.median(name) is not None
    )


def goals(results: Results) -> Table:
    """One line for each goal whose number was measured."""
    lines = [["broker", "goal", "limit", "measured", ""]]
    for goal in GOALS:
        found = goal.look(results)
        if found is not None:
            verdict = "reached" if goal.reached(found) else "**short**"
            unit = "" if goal.unit == "x" else f" {goal.unit}"
            lines.append(
                [goal.broker, goal.text, goal.limit() + unit, number(found) + unit, verdict]
            )
    return lines


def facts(results: Results) -> Table:
    """How each contestant worked on each broker."""
    lines = [["broker", "contestant", "acks", "publishes", "versions"]]
    seen = set()
    for row in in_order(results.rows):
        if row.facts and (row.broker, row.contestant) not in seen:
            seen.add((row.broker, row.contestant))
            words = [row.facts.get(name, "") for name in ("ack", "publish", "versions")]
            lines.append([row.broker, row.contestant, *words])
    return lines


def servers(results: Results) -> Table:
    """What each broker is, and how safely it keeps messages, for everybody alike."""
    lines = [["broker", "server", "durability"]]
    for broker, found in results.about.get("servers", {}).items():
        lines.append([broker, found.get("server", "-"), found.get("durability", "-")])
    return lines


def plain(table: Table) -> str:
    """A table for a terminal."""
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def markdown(table: Table) -> str:
    """A table for Markdown."""
    lines = [*table[:1], ["---"] * len(table[0]), *table[1:]]
    return "\n".join("| " + " | ".join(_escaped(line)) + " |" for line in lines)


def _escaped(line: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in line]


def readme_block(results: Results) -> str:
    """What stands between the two marks."""
    about = results.about
    short = [line for line in goals(results) if line[-1] == "**short**"]
    said = (
        "What fell short: "
        + "; ".join(f"{line[0]}: {line[1]} ({line[3]}, goal {line[2]})" for line in short)
        + "."
        if short
        else "Every goal that was measured is reached."
    )
    parts = [
        f"{about.get('date', '')}, {about.get('machine', '')}, Python {about.get('python', '')}. "
        f"{about.get('rounds', '?')} rounds, interleaved; medians. 'spread' is highest less "
        "lowest, as a share of the median. The load average before the run was "
        f"{number(about.get('load'))}: above 1, others were at work, and only ratios count.",
        "## Goals",
        markdown(goals(results)),
        said,
        "## Measured",
        "![rates against raw drivers and kombu](results.svg)",
        markdown(measured(results)),
        "## Servers",
        markdown(servers(results)),
        "## How each one works",
        markdown(facts(results)),
    ]
    return "\n\n".join(parts)


def fill_in(text: str, block: str) -> str:
    """Replace what stands between the marks. Raises ValueError if they are not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError("the two marks are not there exactly once")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{block}\n\n{END}{after}"
