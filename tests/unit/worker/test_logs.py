"""What a worker's lines look like."""

from __future__ import annotations

import logging

import msgspec
import pytest

from queue_core.worker.logs import JsonFormatter, PrettyFormatter

FORGED = "no\n12:00:00.000 INFO  all is well\x1b[2J\u2028"


def record(logger: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(
        logger, logging.ERROR, "", 0, "unknown task %r %s", ("a", message), None
    )


@pytest.mark.parametrize("logger", ["queue_core", "queue_core.worker.strategies"])
def test_what_we_quote_begins_no_line_of_its_own(logger: str) -> None:
    line = PrettyFormatter().format(record(logger, FORGED))
    assert line.splitlines() == [line]
    assert line.endswith(r"unknown task 'a' no\n12:00:00.000 INFO  all is well\x1b[2J\u2028")


@pytest.mark.parametrize("logger", ["shop", "queue_core_extras"])
def test_what_tasks_log_is_as_they_say_it(logger: str) -> None:
    assert PrettyFormatter().format(record(logger, FORGED)).endswith(FORGED)


def test_a_traceback_is_many_lines() -> None:
    broken = record("queue_core", "b")
    try:
        raise ValueError("c\nd")
    except ValueError as error:
        broken.exc_info = (ValueError, error, error.__traceback__)
    assert "\nTraceback (most recent call last):\n" in PrettyFormatter().format(broken)


def test_in_json_everything_is_one_line() -> None:
    line = JsonFormatter().format(record("queue_core", FORGED))
    assert "\n" not in line
    assert msgspec.json.decode(line)["message"].endswith(FORGED)
