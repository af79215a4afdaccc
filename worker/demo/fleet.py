"""The demo's worker processes: started, killed, replaced, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

STOP_TIMEOUT = 20.0
CLEAN_ENDS = {0, -signal.SIGTERM, 128 + signal.SIGTERM}
"""Exit codes of stopped workers: drained, or still starting: before or after the command line
heeds signals."""


class Fleet:
    """Real ``queue-core worker`` processes. They die with this process, however it ends."""

    def __init__(self, url: str, queue: str, folder: Path, *, children: int, lease: float) -> None:
        """Nothing is started. ``folder`` gets the workers' logs."""
        self._url = url
        self._folder = folder
        self._arguments = [
            *("-A", "queue_core.worker.demo.tasks:app", "-Q", queue),
            *("-c", str(children), "--lease", f"{lease:g}s", "--drain", "10s", "-l", "warning"),
        ]
        self._started = 0
        self._alive: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        watched, ours = os.pipe()
        self._alive.append(ours)
        command = [sys.executable, "-m", "queue_core.worker.cli", "worker", *self._arguments]
        log = self._folder / f"worker-{self._started}.log"
        self._started += 1
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, "--die-with", str(watched)],
                    env={**os.environ, "QUEUE_CORE_URL": self._url},  # not for everybody in `ps`
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(watched,),
                    start_new_session=True,  # Ctrl-C is for the demo, which then stops them
                )
        finally:
            os.close(watched)
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End one worker as a power cut would."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes.remove(process)

    def fallen(self) -> subprocess.Popen[bytes] | None:
        """Return a worker that ended by itself, if there is one."""
        return next((process for process in self.processes if process.poll() is not None), None)

    def stop(self) -> list[int]:
        """Ask every worker to stop, wait for it, and return their exit codes."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(STOP_TIMEOUT))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        self.processes.clear()
        for end in self._alive:
            os.close(end)
        self._alive.clear()
        return codes

    def last_words(self) -> str:
        """Return the last lines that the workers logged."""
        lines: list[str] = []
        for log in sorted(self._folder.glob("worker-*.log")):
            lines += log.read_text(errors="replace").splitlines()[-5:]
        return " | ".join(lines[-5:])
