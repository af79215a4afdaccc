"""The demo's parts that need no worker."""

import signal
from pathlib import Path

import pytest

from queue_core.worker import AsyncResult
from queue_core.worker.demo import run
from queue_core.worker.demo.counting import FIELDS, count, library, modules, total
from queue_core.worker.demo.show import Lines


def test_a_file_is_counted(tmp_path: Path):
    file = tmp_path / "a.py"
    file.write_text("# note\n\nclass A:\n    def b(self):\n        return 'def class'\n")
    assert count(file) == {"lines": 5, "tokens": 11, "functions": 1, "classes": 1, "broken": 0}


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00bad", b"# coding: no-such\n", b"def f(:\n '''open", b"  x\n y\n", b"\x00" * 9],
)
def test_a_file_that_cannot_be_read_to_its_end_is_counted_as_far_as_it_goes(content, tmp_path):
    file = tmp_path / "bad.py"
    file.write_bytes(content)
    assert set(count(file)) == set(FIELDS)


def test_a_missing_file_is_a_broken_one(tmp_path):
    assert count(tmp_path / "none.py")["broken"] == 1


@pytest.mark.slow
def test_the_standard_library_has_modules_enough_and_no_installed_ones():
    found = modules()
    assert len(found) > 500
    assert "tokenize.py" in found
    assert not any("site-packages" in path for path in found)
    assert all((library() / path).is_file() for path in found[:20])


def test_counts_are_added_by_field():
    one, two = dict.fromkeys(FIELDS, 1), dict.fromkeys(FIELDS, 2)
    assert total([one, two]) == dict.fromkeys(FIELDS, 3)
    assert total([]) == dict.fromkeys(FIELDS, 0)


@pytest.mark.slow
def test_a_result_that_differs_fails_the_demo(capsys):
    paths = modules()[:3]
    results = [AsyncResult(path, None) for path in paths]
    tally = run.Tally(sent=3)
    for path in paths:
        tally.results[path] = (count(library() / path), False)
    run._check(paths, results, tally, Lines())
    assert "counted" in capsys.readouterr().out
    tally.results[paths[1]][0]["tokens"] += 1
    with pytest.raises(run.DemoFailed, match="1 results differ"):
        run._check(paths, results, tally, Lines())


@pytest.mark.parametrize(
    ("codes", "left", "done"), [([0, 9], 0, 1), ([0, 0], 2, 1), ([0, 0], 0, 0)]
)
def test_a_lost_task_a_left_message_or_a_failed_worker_fails_the_demo(codes, left, done):
    tally = run.Tally(sent=1)
    tally.results = dict.fromkeys(["x"][:done], (dict.fromkeys(FIELDS, 0), False))
    with pytest.raises(run.DemoFailed):
        run._finish(tally, codes, left, 1.0, Lines())


def test_reruns_are_the_starts_beyond_the_first(tmp_path):
    journal = tmp_path / "starts"
    journal.write_text("a 1\nb 1\na 2\nc 2\na 3\n")
    tally = run.Tally(starts=run._read_journal(journal))
    assert tally.reruns == 2


def test_without_a_terminal_there_are_plain_lines(capsys):
    lines = Lines()
    lines.begin("tasks", 2)
    lines.update(1)
    lines.update(2)
    lines.update(2)
    lines.end()
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 1 and "2/2" in shown and "\r" not in shown


def test_a_worker_told_to_stop_while_it_starts_fails_nothing(capsys):
    tally = run.Tally(sent=1, results={"x": (dict.fromkeys(FIELDS, 0), False)})
    run._finish(tally, [0, -signal.SIGTERM], 0, 1.0, Lines())
    assert capsys.readouterr().out.startswith("OK")
