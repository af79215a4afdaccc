"""Commands that show an app import what its worker would: the modules with tasks, too."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from queue_core.worker.cli import cli

numbers = itertools.count()

APP = """
from queue_core.worker import App
app = App("shown", broker="memory://shown", include=["{name}_tasks"])
app.config_from_object({{"task_routes": {{"shown.*": {{"queue": "routed", "priority": 1}}}}}})
"""
TASKS = """
from {name} import app
from queue_core.worker.blueprint import StartStopStep

class Health(StartStopStep):
    "Writes a file while the worker is well."

app.steps["worker"].add(Health)

@app.task(name="shown.bill", queue="bills")
def bill():
    pass
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"shown_{next(numbers)}"
    (tmp_path / f"{name}.py").write_text(APP.format(name=name))
    (tmp_path / f"{name}_tasks.py").write_text(TASKS.format(name=name))
    for module in (name, f"{name}_tasks"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return name


def test_a_route_is_explained_with_the_options_of_a_task_in_another_module(
    app: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["route", "explain", "shown.bill", "-A", app], standalone_mode=False)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "queue     bills\n" in shown.out
    assert "because   the task's own options: queue = 'bills'" in shown.out


def test_steps_that_another_module_adds_are_among_those_of_the_worker(
    app: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["graph", "worker", "-A", app], standalone_mode=False)
    assert "Health" in capsys.readouterr().out
