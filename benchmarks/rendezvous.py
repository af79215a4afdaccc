"""Where the processes of one measurement wait for one another: files in a folder.

A file's name is what has happened, its content what others need to know of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from benchmarks.processes import Job, Processes, Reply

PATIENCE = 60.0
TICK = 0.02
FAILED = "failed"


class Rendezvous:
    """One folder, seen by one of the processes."""

    def __init__(self, folder: str) -> None:
        """The folder exists, and is removed by whoever made it."""
        self._folder = Path(folder)

    def announce(self, what: str, more: str = "") -> None:
        """Let the others know."""
        path = self._folder / what
        path.with_suffix(".new").write_text(more)
        path.with_suffix(".new").rename(path)

    def announced(self, what: str) -> bool:
        """Whether it has happened."""
        return (self._folder / what).exists()

    def wait_for(self, what: str, seconds: float = PATIENCE) -> str:
        """Wait until it has happened; what was announced with it.

        Raises:
            TimeoutError: it has not.
            RuntimeError: another process failed, which its own answer tells.
        """
        end = time.monotonic() + seconds
        while not self.announced(what):
            if self.announced(FAILED):
                raise RuntimeError("another process failed")
            if time.monotonic() > end:
                raise TimeoutError(f"no other process announced {what!r} within {seconds:g} s")
            time.sleep(TICK)
        return (self._folder / what).read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Whoever fails lets the others know."""
        if kind is not None:
            self.announce(FAILED)


def run_together(processes: Processes, jobs: Sequence[tuple[str, Job]]) -> Reply:
    """In the runner: let processes do these jobs together; the last one's answer, or what failed.

    Each job gets a ``folder`` for its `Rendezvous`.
    """
    with tempfile.TemporaryDirectory(prefix="queue-core-bench-") as folder:
        replies = processes.ask_all([(name, {**job, "folder": folder}) for name, job in jobs])
    bad = [reply for reply in replies if "error" in reply or "absent" in reply]
    own = [reply for reply in bad if "another process failed" not in reply.get("error", "")]
    return (own or bad or replies[-1:])[0]
