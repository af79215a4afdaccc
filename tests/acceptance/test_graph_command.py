"""``queue-core graph``: what a worker is made of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def graph(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "queue_core.worker.cli", "graph", *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_steps_are_listed_in_the_order_of_their_start():
    done = graph()
    assert done.returncode == 0, done.stderr
    names = re.findall(r"(?m)^(?:[├└]─ )?(\w+)", done.stdout)
    assert names == [
        *("worker", "Timer", "Pool", "StateDB", "Consumer"),
        *("consumer", "Connection", "Control", "Tasks", "Loop"),
    ]
    assert re.search(r"Tasks .* after Connection, Control", done.stdout)


def test_the_steps_of_an_app_are_among_them():
    done = graph("worker", "-A", "extended:app")
    assert done.returncode == 0, done.stderr
    assert re.search(r"(?m)^├─ Mood +Keeps a mood\. +after Pool$", done.stdout)
    assert "consumer" not in done.stdout


def test_they_can_be_drawn():
    done = graph("--dot", "consumer")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digraph steps {\n") and done.stdout.endswith("}\n")
    assert '"consumer.Tasks" -> "consumer.Loop";' in done.stdout
    assert done.stdout.count("{") == done.stdout.count("}")


def test_an_app_that_is_not_there_is_one_line_with_the_nearest():
    done = graph("-A", "extende:app")
    assert done.returncode == 2
    assert "-A extended:app" in done.stderr and "Traceback" not in done.stderr
