"""The table of docs/design/mailbox.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NOTE = (ROOT / "docs" / "design" / "mailbox.md").read_text(encoding="utf-8")
PLACES = {
    **{
        word: f"tests/acceptance/mailbox/test_{word}.py"
        for word in ("asking", "nodes", "strangers")
    },
    **{
        word: f"tests/integration/test_mailbox_{word}.py"
        for word in ("deaths", "restarts", "quiet")
    },
}


def test_each_test_that_the_table_names_exists():
    table = NOTE.partition("| fault | test |")[2]
    named = 0
    for row in table.splitlines()[2:]:
        for part in row.strip("| ").partition("| ")[2].split("; "):
            for path in re.findall(r"tests/[\w/]+\.py", part):
                assert (ROOT / path).exists(), path
            place, colon, words = part.partition(": ")
            if place in PLACES:
                text = (ROOT / PLACES[place]).read_text(encoding="utf-8")
                for word in words.split(", ") if colon else []:
                    word = word.partition(" ")[0]
                    assert re.search(rf"(?m)^def test_\w*{word}", text), word
                    named += 1
    assert named > 20
