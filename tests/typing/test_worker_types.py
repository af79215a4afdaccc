"""The types of tasks are checked by mypy, as a user would see them."""

import subprocess
import sys
from pathlib import Path


def test_tasks_keep_the_types_of_their_functions():
    file = Path(__file__).parent / "worker_tasks.py"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(file)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout
