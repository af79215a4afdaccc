"""What the documents say about options, features and commands is what the code has."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from queue_core.worker.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
BROKERS = (ROOT / "docs" / "brokers.rst").read_text(encoding="utf-8")
# Heading in docs/brokers.rst -> the module whose OPTIONS its URLs have.
OPTIONS = {
    "SQLite": "queue_core.transports.sql.sqlite_file",
    "PostgreSQL": "queue_core.transports.sql.postgresql_server",
    "MariaDB": "queue_core.transports.sql.mariadb_server",
    "Redis": "queue_core.transports.redis.options",
    "RabbitMQ": "queue_core.transports.amqp.options",
}


def section(text: str, heading: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"(?ms)^{heading}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", text)
    assert found, f"there is no heading {heading!r}"
    return found[1]


@pytest.mark.parametrize("heading", OPTIONS)
def test_each_option_of_a_url_is_documented_and_no_other(heading: str) -> None:
    rows = re.findall(r'(?m)^    "(``[^"]*)", "', section(BROKERS, heading))
    documented = [name for row in rows for name in re.findall(r"``([\w.]+)``", row)]
    assert sorted(documented) == sorted(importlib.import_module(OPTIONS[heading]).OPTIONS)


def test_each_command_is_documented() -> None:
    for path in (ROOT / "README.rst", ROOT / "docs" / "commands.rst"):
        text = path.read_text(encoding="utf-8")
        assert {
            name for name in COMMANDS if not re.search(rf"``queue-core {name}\b", text)
        } == set()


def test_each_exit_code_of_an_error_is_documented() -> None:
    codes = section((ROOT / "docs" / "commands.rst").read_text(encoding="utf-8"), "Exit codes")
    errors = importlib.import_module("queue_core.worker.cli.errors")
    known = [value for name, value in vars(errors).items() if name.isupper() and type(value) is int]
    assert len(known) > 5
    assert {code for code in known if not re.search(rf"(?m)^{code} ", codes)} == set()


def test_the_table_of_features_is_what_the_transports_declare() -> None:
    tool = ROOT / "tools" / "features_table.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tables_of_settings_are_what_the_code_has() -> None:
    tool = ROOT / "tools" / "settings_table.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_that_differs_is_found_and_written_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("features_table")
    document = tmp_path / "README.rst"
    document.write_text(f"before\n{tool.BEGIN}old\n{tool.END}after\n", encoding="utf-8")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "DOCUMENTS", (document,))
    assert tool.main(["--check"]) == 1
    assert "make docs-table" in capsys.readouterr().out
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "``key_value``: connection.key_value()" in text
    assert "no [1]_" in text and "\n.. [1] ``durable``: use a broker on a disk" in text


def test_every_document_is_in_the_index_and_its_links_lead_somewhere() -> None:
    index = (ROOT / "docs" / "index.rst").read_text(encoding="utf-8")
    for path in (ROOT / "README.rst", *(ROOT / "docs").glob("*.rst")):
        if path.name not in ("README.rst", "index.rst"):
            assert f"<{path.name}>" in index
        for link in re.findall(r"<((?:\.\./)?[\w/]+(?:\.rst|/))>`_", path.read_text("utf-8")):
            assert (path.parent / link).exists(), f"{path.name} leads to {link}"
