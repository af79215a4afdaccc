"""How the demo talks: a bar on a terminal where rich is installed, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol

try:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
except ImportError:
    HAVE_RICH = False
else:
    HAVE_RICH = True

LINE_EVERY = 3.0


class Display(Protocol):
    """Shows one bar at a time, and lines of text."""

    def begin(self, what: str, total: int) -> None:
        """Start a bar."""

    def update(self, done: int) -> None:
        """Move the bar to ``done``."""

    def end(self) -> None:
        """Finish the bar; may be called twice."""

    def say(self, text: str) -> None:
        """Show a line."""


def make_display() -> Display:
    """Return a bar for a person at a terminal, lines for everybody else."""
    person = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return Bars() if person and HAVE_RICH else Lines()


class Lines:
    """A line every few seconds."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._what = ""
        self._total = 0
        self._done = 0
        self._began = self._shown = 0.0

    def begin(self, what: str, total: int) -> None:
        """Remember what to show."""
        self._what, self._total, self._done = what, total, 0
        self._began = self._shown = time.monotonic()

    def update(self, done: int) -> None:
        """Show a line if the last one is some seconds old, or this is the end."""
        now = time.monotonic()
        ended = done >= self._total > self._done
        self._done = done
        if ended or now - self._shown >= LINE_EVERY:
            self._shown = now
            rate = done / max(now - self._began, 0.001)
            left = (self._total - done) / rate if rate else 0.0
            rest = f"{left:4.0f} s left" if not ended else f"in {now - self._began:.1f} s"
            self.say(f"{self._what:<8} {done:>5}/{self._total}  {rate:6.0f}/s  {rest}")

    def end(self) -> None:
        """Nothing to clear."""

    def say(self, text: str) -> None:
        """Print it at once, also into a pipe."""
        print(text, flush=True)


class Bars:
    """A bar with rate and remaining time."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._began = 0.0

    def begin(self, what: str, total: int) -> None:
        """Draw an empty bar."""
        self.end()
        self._began = time.monotonic()
        self._progress = Progress(
            TextColumn(f"{what:<8}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>5.0f}/s"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task = self._progress.add_task(what, total=total, rate=0.0)
        self._progress.start()

    def update(self, done: int) -> None:
        """Redraw."""
        if self._progress is not None and self._task is not None:
            rate = done / max(time.monotonic() - self._began, 0.001)
            self._progress.update(self._task, completed=done, rate=rate)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(text, markup=False)
