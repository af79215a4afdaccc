"""The runner's side of the contestants' processes: start, ask, end.

A process starts when it is first asked and lives until `Processes.rest`; between its jobs it waits
for input and costs nothing.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tools.processes import dying_with_parent

ROOT = Path(__file__).resolve().parent.parent
Job = dict[str, Any]
Reply = dict[str, Any]


class BenchError(Exception):
    """Told to the user in one line."""


class Failed(Exception):
    """A sample could not be taken; its row says why."""


class Processes:
    """The processes of one run. A context manager."""

    def __init__(self, pythons: Mapping[str, Path], log: Path, patience: float = 900.0) -> None:
        """Start nothing yet.

        Args:
            pythons: the interpreter of each contestant.
            log: where the processes' stderr goes.
            patience: seconds for the answer to one job.
        """
        self._pythons = pythons
        self.log = log.open("wb")
        self._patience = patience
        self._processes: dict[tuple[str, int], _Process] = {}

    def ask(self, contestant: str, job: Job) -> Reply:
        """Let a contestant do one job."""
        return self.ask_all([(contestant, job)])[0]

    def ask_all(self, jobs: Sequence[tuple[str, Job]]) -> list[Reply]:
        """Let several processes do a job each, at the same time.

        A contestant that is named n times gets n processes. A process that does not answer in time
        is killed, and its answer is an ``error``.
        """
        asked = []
        numbers: dict[str, int] = {}
        for contestant, _ in jobs:
            number = numbers[contestant] = numbers.get(contestant, -1) + 1
            asked.append(self._process(contestant, number))
        for process, (_, job) in zip(asked, jobs, strict=True):
            process.tell(job)
        deadline = time.monotonic() + self._patience
        return [process.answer(deadline) for process in asked]

    def python(self, contestant: str) -> Path:
        """The interpreter of a contestant."""
        return self._pythons[contestant]

    def warm(self, contestant: str, number: int) -> None:
        """Have this many processes of a contestant running."""
        for index in range(number):
            self._process(contestant, index)

    def _process(self, contestant: str, number: int) -> _Process:
        process = self._processes.get((contestant, number))
        if process is None or process.ended:
            process = _Process(self._pythons[contestant], contestant, self.log)
            self._processes[contestant, number] = process
        return process

    def rest(self) -> None:
        """End every process; they are started again when asked. Some leak what they open."""
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def close(self) -> None:
        """End every process, and the log."""
        self.rest()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Process:
    def __init__(self, python: Path, contestant: str, log: Any) -> None:
        self._name = contestant
        self._popen = subprocess.Popen(
            [python, "-m", "benchmarks.contest", contestant],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )
        self.ended = False
        ready = self.answer(time.monotonic() + 30.0)
        if "ready" not in ready:
            raise BenchError(f"{contestant} did not start: {ready.get('error')}; see {log.name}")

    def tell(self, job: Job) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(job).encode() + b"\n")
        self._popen.stdin.flush()

    def answer(self, deadline: float) -> Reply:
        """One line, which is short, so that it comes in one piece."""
        assert self._popen.stdout is not None
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._popen.stdout], [], [], left)[0]:
            self.close()
            return {"error": "no answer in time"}
        line = self._popen.stdout.readline()
        if not line:
            self.close()
            return {"error": f"the process of {self._name} ended"}
        reply: Reply = json.loads(line)
        return reply

    def close(self) -> None:
        self.ended = True
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()
