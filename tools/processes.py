"""Processes that do not outlive their purpose.

What `keeper.py`, `servers` and `dev.py` share: the parent-death signal of Linux, telling a
process from a later one with the same id, running a command in a group that is gone afterwards,
and finding what such a command left behind. Standard library only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
MARK = "QUEUE_CORE_RUN"  # the environment variable that marks the descendants of one run
TIMED_OUT = 124  # the exit code of `contained` after its limit, as that of timeout(1)


def die_with_parent(number: int) -> None:
    """Ask the kernel for signal ``number`` when our parent ends. Does nothing outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def dying_with_parent(number: int) -> Callable[[], None]:
    """A hook for a fresh child: it gets signal ``number`` when its parent ends, or has ended."""
    parent = os.getpid()

    def hook() -> None:
        die_with_parent(number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)

    return hook


def born(pid: int) -> str | None:
    """When process ``pid`` started, in the kernel's ticks.

    It tells a process from a later one with the same id. Returns "" where there is no /proc to
    ask, and None when no such process is running.
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


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the group that ``process`` leads; nothing happens when it is gone."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def end_group(process: subprocess.Popen[bytes], number: int, grace: float) -> None:
    """Send ``number`` to the group, wait ``grace`` seconds for its leader, then kill the group."""
    if process.poll() is None:
        signal_group(process, number)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
    signal_group(process, signal.SIGKILL)
    process.wait()


def contained(
    argv: Sequence[str],
    environment: Mapping[str, str],
    limit: float | None,
    cwd: Path | None = None,
) -> int:
    """Run a command in a process group of its own, to its end; its exit code.

    After ``limit`` seconds the group is ended and `TIMED_OUT` returned. On an exception such as
    Ctrl-C the command gets SIGINT and ten seconds to clean up, then its group is killed; when we
    die it gets SIGTERM. What a command leaves behind that ended by itself is not touched (see
    `end_marked`). Call it from the main thread.
    """
    process = subprocess.Popen(
        list(argv),
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=dying_with_parent(signal.SIGTERM),
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        end_group(process, signal.SIGTERM, 10.0)
        return TIMED_OUT
    except BaseException:
        end_group(process, signal.SIGINT, 10.0)
        raise


def _marked(mark: str) -> dict[int, str]:
    """Process ids and command lines of what runs with ``mark`` in its environment."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or it is not ours
    return found


def end_marked(mark: str, grace: float) -> list[str]:
    """Kill what still runs with ``mark`` in its environment; the command lines of what it was.

    Descendants of a finished command get ``grace`` seconds to end by themselves. Finds nothing on
    systems without /proc.
    """
    deadline = time.monotonic() + grace
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return [f"{pid}: {command[:120]}" for pid, command in left.items()]
