"""The runner's side of the task libraries: a process that sends, workers, and what has run.

Each task counts itself in a file that is mapped into memory (`benchmarks.workers.counter`), so that
"done" is seen the same way for everybody and costs nobody a message.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.adapter import NotOffered
from benchmarks.libraries import APPS, LIBRARIES, PROCESSES
from benchmarks.names import named
from benchmarks.processes import ROOT, Failed, Job, Processes, Reply
from benchmarks.tree import Tree
from benchmarks.workers.counter import FOLDER, total
from tools.processes import dying_with_parent, end_group

TO_SEND = 300.0
TO_RUN = 60.0
TO_STOP = 10.0
TICK = 0.003


class LibraryRun:
    """One library on one broker. A context manager; at its end the library's queues are removed.

    Attributes:
        facts: what the library's app says of itself.
        trees: the workers' processes.
    """

    def __init__(self, processes: Processes, contestant: str, job: Job) -> None:
        """Start who sends, and no worker yet.

        Args:
            processes: has the interpreters and the log.
            contestant: one of `LIBRARIES`.
            job: has ``broker`` and ``url``, and perhaps ``results`` (results are kept) and
                ``pool``, one of the library's pools.

        Raises:
            NotOffered: the library does not do that on this broker.
        """
        library = LIBRARIES[contestant]
        results = job.get("results", False)
        pool = job.get("pool", PROCESSES)
        brokers = library.results if results else library.brokers
        if job["broker"] not in brokers or pool not in library.pools:
            raise NotOffered(f"{contestant} is not measured on {job['broker']}")
        self.trees: list[Tree] = []
        self._processes = processes
        self._times = library.times
        python = str(processes.python(contestant))
        self._worker = (python, "-m", *library.command.split(), *library.pools[pool].split())
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="queue-core-bench-"))
            self._counters = Path(folder)
            self._environment = {
                **os.environ,
                **library.settings,
                "PYTHONDONTWRITEBYTECODE": "",  # else each start of ours compiles all its modules
                FOLDER: folder,
                "QUEUE_CORE_BENCH_BROKER": job["broker"],
                "QUEUE_CORE_BENCH_URL": job["url"],
                "QUEUE_CORE_BENCH_QUEUE": named(f"tasks_{library.app}"),
                "QUEUE_CORE_BENCH_RESULTS": "yes" if results else "",
            }
            self._sender = stack.enter_context(self._sending(python, library.app))
            self.facts: dict[str, str] = self._answer()["facts"]
            self._stack = stack.pop_all()

    def order(self, what: str, count: int) -> Reply:
        """Let the sender do something ``count`` times; what it measured. See `workers.send`."""
        assert self._sender.stdin is not None
        self._sender.stdin.write(json.dumps({"do": what, "count": count}).encode() + b"\n")
        self._sender.stdin.flush()
        return self._answer()

    def start_workers(self) -> None:
        """Start the workers."""
        for _ in range(self._times):
            process = self._stack.enter_context(self._working())
            self.trees.append(Tree(process.pid))

    def done(self) -> int:
        """How many tasks have run."""
        return total(self._counters)[0]

    def wait(self, count: int) -> float:
        """Wait until this many tasks have run; the monotonic time when the last one did."""
        deadline = time.monotonic() + TO_RUN
        while True:
            found, latest = total(self._counters)
            if found >= count:
                return latest
            if time.monotonic() > deadline:
                raise Failed(f"{found} of {count} tasks ran within {TO_RUN:g} s")
            time.sleep(TICK)

    def _answer(self) -> Reply:
        assert self._sender.stdout is not None
        if not select.select([self._sender.stdout], [], [], TO_SEND)[0]:
            raise Failed("the tasks were not sent in time")
        reply: Reply = json.loads(self._sender.stdout.readline() or '{"error": "nothing sends"}')
        if "error" in reply:
            raise Failed(reply["error"])
        return reply

    @contextlib.contextmanager
    def _sending(self, python: str, app: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self._started((python, "-m", f"{APPS}.send", app), stdout=subprocess.PIPE)
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TO_STOP)
            end_group(process, signal.SIGINT, TO_STOP)  # it still sends: clean up all the same
            process.stdout.close()

    @contextlib.contextmanager
    def _working(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker, which is told to stop at the end, and killed if it does not."""
        process = self._started(self._worker, stdout=self._processes.log)
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            end_group(process, signal.SIGTERM, TO_STOP)

    def _started(self, arguments: tuple[str, ...], *, stdout: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=self._processes.log,
            process_group=0,
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
