"""``queue-core db`` on each broker: what it prints, and the code that it exits with."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

DATABASES = ("sqlite", "postgresql", "mysql")


def db(command: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "queue_core.worker.cli", "db", command, "-b", url, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_check_fails_until_upgrade_was_run(broker_url: str) -> None:
    if not broker_url.startswith(DATABASES):
        done = db("check", broker_url)
        assert done.returncode == 78
        assert "does not support schema" in done.stderr
        assert "Traceback" not in done.stderr
        return
    before = db("check", broker_url)
    assert (before.returncode, before.stdout) == (1, "")
    assert "no tables of queue_core" in before.stderr
    assert "queue-core db upgrade" in before.stderr
    assert json.loads(db("check", broker_url, "--json").stdout)["current"] is False
    assert db("upgrade", broker_url).returncode == 0
    after = db("check", broker_url)
    assert (after.returncode, after.stderr) == (0, "")


def test_version_shows_what_there_is_and_what_is_wanted(broker_url: str) -> None:
    if not broker_url.startswith(DATABASES):
        assert db("version", broker_url).returncode == 78
        return
    assert "none" in db("version", broker_url).stdout
    db("upgrade", broker_url)
    report = json.loads(db("version", broker_url, "--json").stdout)
    assert report["found"] == report["wanted"] == "1.0"
    assert report["current"] is True
    secret = broker_url.partition("@")[0].rpartition(":")[2]
    assert secret not in str(report) or broker_url.startswith("sqlite")


@pytest.mark.parametrize(
    ("server", "said"), [("mysql", "GRANT CREATE"), ("postgres", "permission denied")]
)
def test_who_may_make_no_tables_is_told_which_right_is_missing(
    server: str, said: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{server}_restricted")
    done = db("upgrade", url)
    assert done.returncode == 77
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    assert db("upgrade", url).returncode == 0
    with sqlite3.connect(f"{tmp_path}/queue.db") as connection:
        connection.execute("UPDATE queue_core_meta SET number = 7 WHERE name = 'major'")
    connection.close()
    for command in ("version", "check", "upgrade"):
        done = db(command, url)
        assert done.returncode == 76
        assert "7.0" in done.stderr
        assert "1.0" in done.stderr
