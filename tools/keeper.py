"""Keeps the processes of one test server, and lets none of them outlive it.

Run as ``keeper.py PLAN``: PLAN is a JSON file that ``services.py`` wrote (see `Plan`). The keeper
leads a session of its own, drops root if the plan names a user, starts the processes in order and
waits. It stops them, in reverse order, as soon as one of these happens:

- it gets SIGTERM, SIGINT or SIGHUP;
- its standard input ends, when the plan says ``owned``: the owner holds the other end of that
  pipe, so the end comes however the owner dies, SIGKILL included;
- one of its processes ends by itself.

Should the keeper itself be killed, the kernel ends its processes (the parent-death signal, on
Linux). Afterwards the plan's ``after`` commands run and its ``remove`` folders are deleted.
Standard library only: this runs before anything is installed.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL = 0.2  # seconds between two looks at the processes


@dataclass
class Process:
    """A process of a plan: command, whole environment, and its signal when the keeper dies."""

    argv: list[str]
    environment: dict[str, str]
    death_signal: int = signal.SIGKILL


@dataclass
class Plan:
    """What a keeper runs.

    ``grace`` is in seconds; ``user`` and ``group`` are ids, None to stay who we are.
    """

    folder: str
    processes: list[Process]
    owned: bool = False
    user: int | None = None
    group: int | None = None
    grace: float = 8.0
    after: list[list[str]] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the plan where a keeper can read it."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan written by `save`."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["processes"] = [Process(**process) for process in raw["processes"]]
        return cls(**raw)


def prctl(option: int, value: int) -> None:
    """Call Linux's prctl; elsewhere do nothing (there pipe and pid files have to be enough)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def dies_with_parent(number: int) -> Callable[[], None]:
    """A hook for a fresh child: it gets signal ``number`` when its parent ends, or has ended."""
    parent = os.getpid()

    def hook() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)

    return hook


def born(pid: int) -> str | None:
    """When process ``pid`` started, in the kernel's ticks.

    It tells a process from a later one with the same id. Returns "" where there is no /proc to ask and None when no such process is running.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _start(plan: Plan, log: int) -> list[subprocess.Popen[bytes]]:
    started = []
    for process in plan.processes:
        started.append(
            subprocess.Popen(
                process.argv,
                env=process.environment,
                cwd=plan.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=dies_with_parent(process.death_signal),
            )
        )
    return started


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _stop(started: list[subprocess.Popen[bytes]], grace: float) -> None:
    for process in reversed(started):
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _wait(plan: Plan, started: list[subprocess.Popen[bytes]], stopping: list[int]) -> str:
    """Block until there is a reason to stop, and return it."""
    while True:
        if stopping:
            return f"signal {stopping[0]}"
        for process in started:
            if process.poll() is not None:
                return f"{Path(process.args[0]).name} ended with code {process.returncode}"  # type: ignore[index,arg-type]  # args is the argv list given above
        if plan.owned:
            if select.select([0], [], [], POLL)[0] and not os.read(0, 1):
                return "its owner ended"
        else:
            time.sleep(POLL)


def main(arguments: list[str]) -> int:
    """Run the plan named by the only argument; 0 unless one of its processes ended by itself."""
    plan = Plan.load(Path(arguments[0]))
    if plan.group is not None and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(plan.group)
    if plan.user is not None and os.geteuid() == 0:
        os.setuid(plan.user)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    log = os.open(
        os.path.join(plan.folder, "output.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        started = _start(plan, log)
        reason = _wait(plan, started, stopping)
        os.write(log, f"keeper: stopping, because {reason}\n".encode())
    finally:
        _stop(started, plan.grace)
        for command in plan.after:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=60
            )
        for folder in plan.remove:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if " ended with code " in reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
