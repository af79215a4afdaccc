"""One plot, as SVG: everybody's rates, a panel per broker, on a logarithmic scale. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from benchmarks.cases import BROKERS
from benchmarks.report import number
from benchmarks.results import Results

CASES = ("publish one by one", "publish_many", "consume, prefetch 1", "consume, prefetch 100")
COLOURS = {"ours": "#2f6fb0", "raw": "#9a9a9a", "kombu": "#d08a3c"}
NAMES = {"ours": "queue_core", "raw": "bare driver", "kombu": "kombu"}
LOWEST, HIGHEST = 1.0, 6.0  # powers of ten: 10 to 1,000,000 messages a second
LEFT, WIDTH, BAR, GAP, PANEL = 170, 470, 11, 7, 26
RIGHT = 70


def svg(results: Results) -> str:
    """The whole picture; brokers and contestants that were not measured are left out."""
    parts: list[str] = []
    top = _legend(parts)
    for broker in BROKERS:
        bars = list(_bars(results, broker))
        if bars:
            top = _panel(parts, broker, bars, top)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{top}" '
        'font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def _bars(results: Results, broker: str) -> Iterable[tuple[str, Sequence[tuple[str, float]]]]:
    for case in CASES:
        found = [(name, results.median(case, broker, name)) for name in COLOURS]
        known = [(name, value) for name, value in found if value]
        if known:
            yield case, known


def _legend(parts: list[str]) -> int:
    at = LEFT
    for name, colour in COLOURS.items():
        parts.append(f'<rect x="{at}" y="10" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(at + 16, 20, NAMES[name]))
        at += 110
    parts.append(_text(at, 20, "messages a second, logarithmic"))
    return 34


def _panel(
    parts: list[str], broker: str, bars: Sequence[tuple[str, Sequence[tuple[str, float]]]], top: int
) -> int:
    parts.append(_text(8, top + 14, broker, extra=' font-weight="bold"'))
    first = top = top + PANEL - 6
    for case, values in bars:
        middle = top + BAR * len(values) / 2 + 4
        parts.append(_text(LEFT - 8, middle, case, extra=' text-anchor="end"'))
        for name, value in values:
            width = _place(value) - LEFT
            parts.append(
                f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR - 1}" '
                f'fill="{COLOURS[name]}"/>'
            )
            parts.append(_text(LEFT + width + 4, top + BAR - 2, number(value)))
            top += BAR
        top += GAP
    for power in range(int(LOWEST), int(HIGHEST) + 1):
        place = _place(10.0**power)
        parts.insert(
            0,
            f'<line x1="{place:.1f}" y1="{first}" x2="{place:.1f}" y2="{top - GAP}" '
            'stroke="#e4e4e4"/>',
        )
    return top + 8


def _place(value: float) -> float:
    share = (math.log10(max(value, 10**LOWEST)) - LOWEST) / (HIGHEST - LOWEST)
    return LEFT + WIDTH * min(1.0, share)


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(words)}</text>'
