"""The runner from the command line, on brokers that need no server, with tiny counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results import Results

ROOT = Path(__file__).resolve().parents[3]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
    )


def said(*arguments: str, **environment: str) -> str:
    """The one line that a refusal says."""
    done = bench(*arguments, **environment)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_run_measures_everybody_who_can_do_it(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = bench(
        *("--only", "memory,sqlite", "--scenario", "publish,consume,pingpong"),
        *("--rounds", "1", "--count", "20", "--json", str(file)),
    )
    assert done.returncode == 0, done.stderr
    results = Results.from_json(json.loads(file.read_text()))
    expected = {
        (case, broker, contestant)
        for case in (
            "publish one by one",
            "publish_many",
            "consume, prefetch 1",
            "consume, prefetch 100",
        )
        for broker in ("memory", "sqlite")
        for contestant in ("ours", "raw")
    } | {("ping-pong", "sqlite", name) for name in ("ours", "raw")}
    assert {(row.case, row.broker, row.contestant) for row in results.rows} == expected
    for row in results.rows:
        assert not row.error and len(row.samples) == 1
        assert row.samples[0]["value"] > 0 and row.samples[0]["count"] == 20
    assert "ping-pong" in done.stdout
    assert results.about["servers"]["sqlite"]["durability"].endswith("FULL")


def test_the_task_question_runs_a_worker(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = bench(
        *("--only", "sqlite", "--scenario", "with results", "--contestants", "ours"),
        *("--rounds", "1", "--count", "400", "--json", str(file)),  # timed from the 40th on
    )
    assert done.returncode == 0, done.stderr
    (row,) = Results.from_json(json.loads(file.read_text())).rows
    (sample,) = row.samples
    assert sample["value"] > 0 and sample["cpu_parent_us"] > 0 and sample["cpu_children_us"] > 0


def test_a_broker_that_does_not_exist_is_refused_in_one_line() -> None:
    assert "no broker 'rabbit'; there are: memory, sqlite" in said("--only", "rabbit")


def test_a_scenario_that_does_not_exist_is_refused_in_one_line() -> None:
    assert "no scenario 'speed'; there are: publish, consume" in said("--scenario", "speed")


def test_a_server_that_nobody_started_is_told_in_one_line() -> None:
    line = said(
        *("--only", "redis", "--scenario", "publish"),
        QUEUE_CORE_BENCH_SERVERS="asked",
        QUEUE_CORE_TEST_REDIS_URL="",
    )
    assert "no server for redis" in line


def test_a_contestant_whose_environment_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    line = said("--peers", "--only", "memory", QUEUE_CORE_BENCH_PEERS=str(tmp_path))
    assert "make bench-peers" in line


@pytest.mark.parametrize("content", ["", "{}", '{"rows": 1}'])
def test_a_file_that_holds_no_results_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    assert str(file) in said("--report", str(file))
    assert "nowhere.json" in said("--report", str(tmp_path / "nowhere.json"))
