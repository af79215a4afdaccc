"""No process of a test server outlives its purpose, whoever is killed."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"

# Starts a keeper as servers/private.py does, says who it is, and waits to be killed.
OWNER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from keeper import Plan, Process
from servers.private import keep
folder = Path(sys.argv[2])
script = f"echo $$ >> {folder}/pids; exec sleep 600"
one = Process(["/bin/sh", "-c", script], {"PATH": os.environ["PATH"]})
reader, writer = os.pipe()
remove = folder / "data"
remove.mkdir()
keeper, _ = keep(Plan(str(folder), [one, one], remove=[str(remove)]), folder / "output.log", reader)
print(keeper, flush=True)
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids_in(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    """An owner, the id of its keeper, and the ids of the two kept processes."""
    if sys.platform != "linux":
        pytest.fail("looks into /proc")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(TOOLS), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    keeper = int(owner.stdout.readline())
    eventually(lambda: len(pids_in(tmp_path)) == 2, "two processes started")
    pids = pids_in(tmp_path)
    yield owner, keeper, pids
    owner.kill()
    owner.wait()
    owner.stdout.close()
    eventually(lambda: not any(map(running, [keeper, *pids])), "everything ended")


def test_kept_processes_end_when_the_owner_is_killed(
    kept: tuple[subprocess.Popen[str], int, list[int]], tmp_path: Path
) -> None:
    owner, keeper, pids = kept
    owner.kill()
    eventually(lambda: not any(map(running, [keeper, *pids])), "keeper and processes ended")
    assert not (tmp_path / "data").exists()
    assert "its owner ended" in (tmp_path / "output.log").read_text()


def test_kept_processes_end_when_the_keeper_is_killed(
    kept: tuple[subprocess.Popen[str], int, list[int]],
) -> None:
    _, keeper, pids = kept
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not any(map(running, pids)), "processes ended")


def test_the_keeper_ends_all_when_one_process_ends(
    kept: tuple[subprocess.Popen[str], int, list[int]], tmp_path: Path
) -> None:
    _, keeper, pids = kept
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not any(map(running, [keeper, *pids])), "keeper and processes ended")
    assert "/bin/sh ended with code -9" in (tmp_path / "output.log").read_text()


def test_a_plan_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    keeper = importlib.import_module("keeper")
    process = keeper.Process(["a", "b"], {"C": "d"})
    plan = keeper.Plan(str(tmp_path), [process], owned=True, after=[["e"]])
    plan.save(tmp_path / "plan")
    assert keeper.Plan.load(tmp_path / "plan") == plan
    assert json.loads((tmp_path / "plan").read_text())["owned"] is True
