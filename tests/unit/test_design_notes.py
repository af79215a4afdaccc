"""The tables of docs/design/ that say which test shows what name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "mailbox": {
        "acceptance/mailbox/test_{}.py": "asking nodes strangers forked",
        "integration/test_mailbox_{}.py": "deaths restarts quiet",
    },
    "worker": {
        "acceptance/test_worker_{}.py": "canvas control deaths endurance faults "
        "pools results tasks",
        "integration/test_processes_{}.py": "kill",
        "unit/worker/test_{}.py": "failure flight_machine in_flight pools_limits protocol "
        "settler storms supervisor trace worker_machine",
    },
}
"""Note -> where the test files are that its table calls by a word."""


def rows(note: str) -> list[tuple[str, str]]:
    """Return what the table says: a fault, and its tests."""
    text = (ROOT / "docs" / "design" / f"{note}.md").read_text(encoding="utf-8")
    lines = text.partition("| fault | test |")[2].splitlines()[2:]
    cells = [line.strip("| ").partition(" | ") for line in lines if line.startswith("|")]
    return [(fault, tests) for fault, _, tests in cells]


@pytest.mark.parametrize("note", TESTS)
def test_each_test_that_a_table_names_exists(note):
    places = {
        word: ROOT / "tests" / path.format(word)
        for path, words in TESTS[note].items()
        for word in words.split()
    }
    named = 0
    for fault, tests in rows(note):
        for part in tests.split("; "):
            for path in re.findall(r"tests/[\w/]+\.py", part):
                assert (ROOT / path).exists(), f"{fault}: {path}"
            place, colon, words = part.partition(": ")
            if place in places:
                text = places[place].read_text(encoding="utf-8")
                for word in words.split(", ") if colon else []:
                    word = word.partition(" ")[0]
                    found = re.search(rf"(?m)^ *(async )?(def test|class Test)_?\w*{word}", text)
                    assert found, f"{fault}: {place}: {word}"
                    named += 1
    assert named > 20


def test_each_fault_of_a_worker_has_its_row():
    wanted = [f"W{number}" for number in range(1, 23)] + ["A17", "B9", "B10", "B19"]
    assert [fault.partition(" ")[0] for fault, _ in rows("worker")][: len(wanted)] == wanted
