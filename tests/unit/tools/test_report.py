"""The report of a run counts what pytest wrote, and fails what must fail."""

import importlib
import types
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.conformance.test_memory_store.TestMemoryStore" name="test_a"/>
<testcase classname="tests.conformance.test_sqlite.TestSQLiteStore" name="test_a">
  <failure message="boom&#10;more"/></testcase>
<testcase classname="tests.conformance.test_sqlite.TestSQLiteStore" name="test_b">
  <skipped type="pytest.skip" message="no server"/></testcase>
<testcase classname="tests.conformance.test_sqlite.TestSQLiteStore" name="test_c">
  <skipped type="pytest.xfail" message="known"/></testcase>
<testcase classname="tests.conformance.test_amqp" name="test_broken">
  <error message="setup"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("dev")


def read(dev: types.ModuleType, folder: Path) -> list[object]:
    (folder / "report.xml").write_text(JUNIT)
    return list(dev.read_report(folder / "report.xml"))


def test_a_report_is_read_with_reasons(dev: types.ModuleType, tmp_path: Path) -> None:
    outcomes = [(case.outcome, case.reason) for case in read(dev, tmp_path)]  # type: ignore[attr-defined]  # a Case
    assert outcomes == [
        ("passed", ""),
        ("failed", "boom"),
        ("skipped", "no server"),
        ("passed", ""),
        ("failed", "setup"),
    ]


def test_a_missing_report_has_no_cases(dev: types.ModuleType, tmp_path: Path) -> None:
    assert dev.read_report(tmp_path / "nothing.xml") == []


def test_the_table_has_a_column_for_each_transport(dev: types.ModuleType, tmp_path: Path) -> None:
    result = dev.Result("conformance", read(dev, tmp_path))
    assert dev.table([result]) == [
        "suite       amqp      memory    sqlite",
        "(no class)  1 failed  -         -",
        "Store       -         1 passed  1 passed, 1 failed, 1 skipped",
    ]


def run_with(dev: types.ModuleType, *outcomes: str) -> object:
    run = dev.Run({}, 1.0)
    cases = [dev.Case(f"test_{n}", outcome, "why") for n, outcome in enumerate(outcomes)]
    run.results.append(dev.Result("unit", cases))
    return run


@pytest.mark.parametrize(
    ("outcomes", "skips_fail", "code"),
    [
        (["passed"], True, 0),
        (["passed", "skipped"], False, 0),
        (["passed", "skipped"], True, 1),
        (["passed", "failed"], False, 1),
    ],
)
def test_failures_fail_and_skips_fail_when_servers_are_wanted(
    dev: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[str],
    skips_fail: bool,
    code: int,
) -> None:
    assert dev.report(run_with(dev, *outcomes), "test", skips_fail=skips_fail) == code
    lines = capsys.readouterr().out.splitlines()
    counts = [f"{outcomes.count(word)} {word}" for word in ("passed", "failed", "skipped")]
    assert lines[-1] == ", ".join(counts) + " in 0 s"
    assert any(line.startswith("next:") for line in lines) == bool(code)
