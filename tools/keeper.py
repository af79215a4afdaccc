"""Keeps the processes of one test server, and lets none of them outlive it.

Run as ``keeper.py PLAN``: PLAN is a JSON file that ``servers/private.py`` wrote (see `Plan`). The
keeper leads a session of its own, drops root if the plan names a user, runs what comes ``before``
to its end, starts the processes in order and waits. It stops them, in reverse order, as soon as one
of these happens:

- it gets SIGTERM, SIGINT or SIGHUP;
- its standard input ends, when the plan says ``owned``: the owner holds the other end of that
  pipe, so the end comes however the owner dies, SIGKILL included;
- one of its processes ends by itself.

What its processes write goes where its own output goes.

Should the keeper itself be killed, the kernel ends its processes (the parent-death signal, on
Linux). Afterwards the plan's ``after`` commands run and its ``remove`` folders are deleted.
Standard library only: this runs before anything is installed.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from processes import dying_with_parent, end_group

POLL = 0.2  # seconds between two looks at the processes


@dataclass
class Process:
    """A process of a plan: command, whole environment, and the signals that end it.

    ``stop_signal`` asks it to end, ``death_signal`` comes from the kernel when the keeper dies.
    """

    argv: list[str]
    environment: dict[str, str]
    death_signal: int = signal.SIGKILL
    stop_signal: int = signal.SIGTERM


@dataclass
class Plan:
    """What a keeper runs.

    ``grace`` is in seconds; ``user`` and ``group`` are ids, None to stay who we are.
    """

    folder: str
    processes: list[Process]
    before: list[Process] = field(default_factory=list)
    owned: bool = False
    user: int | None = None
    group: int | None = None
    grace: float = 8.0
    after: list[list[str]] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the plan where a keeper can read it."""
        path.touch(0o600)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan written by `save`."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        for phase in ("before", "processes"):
            raw[phase] = [Process(**process) for process in raw[phase]]
        return cls(**raw)


def _drop_root(plan: Plan) -> None:
    if os.geteuid() != 0 or plan.user is None or plan.group is None:
        return
    os.setgroups([])
    os.setgid(plan.group)
    os.setuid(plan.user)


def _start(process: Process, folder: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        process.argv,
        env=process.environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=dying_with_parent(process.death_signal),
    )


def _prepare(plan: Plan) -> str | None:
    """Run what comes before the processes; the reason to stop when some of it fails."""
    for process in plan.before:
        code = _start(process, plan.folder).wait()
        if code:
            return f"{process.argv[0]} failed with code {code}"
    return None


def _wait(
    plan: Plan, started: list[subprocess.Popen[bytes]], stopping: list[int]
) -> tuple[str, int]:
    """Block until there is a reason to stop; the reason and the exit code that it means."""
    while True:
        if stopping:
            return f"of signal {stopping[0]}", 0
        for process, wanted in zip(started, plan.processes, strict=True):
            if process.poll() is not None:
                return f"{wanted.argv[0]} ended with code {process.returncode}", 1
        if not plan.owned:
            time.sleep(POLL)
        elif select.select([0], [], [], POLL)[0] and not os.read(0, 1):
            return "its owner ended", 0


def main(arguments: list[str]) -> int:
    """Run the plan named by the only argument; 0 unless one of its processes ended by itself."""
    plan = Plan.load(Path(arguments[0]))
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    _drop_root(plan)
    started: list[subprocess.Popen[bytes]] = []
    try:
        reason, code = _prepare(plan), 1
        if reason is None:
            for process in plan.processes:
                started.append(_start(process, plan.folder))
            reason, code = _wait(plan, started, stopping)
        print(f"keeper: stopping, because {reason}", flush=True)
    finally:
        for running, process in reversed(list(zip(started, plan.processes, strict=False))):
            end_group(running, process.stop_signal, plan.grace)
        for command in plan.after:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=60)
        for folder in plan.remove:
            shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
