"""What the settings of a database mean for what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from queue_core.durability import Survives
from queue_core.transports.sql.durability import (
    filesystem_of,
    of_mariadb,
    of_postgresql,
    of_sqlite,
)

POSTGRESQL = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
MARIADB = {
    "innodb_doublewrite": "ON",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_flush_method": "O_DIRECT",
    "log_bin": "OFF",
    "sync_binlog": "0",
}
INNODB = frozenset({"InnoDB"})


@pytest.mark.parametrize(
    ("options", "survives"),
    [
        ("", Survives.POWER_CUT),
        ("?synchronous=extra", Survives.POWER_CUT),
        ("?synchronous=normal", Survives.SERVER_CRASH),
    ],
)
def test_sqlite_says_how_it_was_opened(
    open_handle: Callable[..., object], options: str, survives: Survives, tmp_path: Path
) -> None:
    found = open_handle(options).durability()  # type: ignore[attr-defined]
    kind = filesystem_of(str(tmp_path), Path("/proc/self/mountinfo").read_text())
    expected = of_sqlite("wal", options.partition("=")[2] or "full", kind)
    assert found.survives is min(survives, expected.survives)
    assert found.broker.startswith("SQLite 3.")
    assert kind in found.found


@pytest.mark.parametrize(
    ("filesystem", "synchronous", "survives"),
    [
        ("ext4", "full", Survives.POWER_CUT),
        ("", "extra", Survives.POWER_CUT),
        ("ext4", "normal", Survives.SERVER_CRASH),
        ("tmpfs", "full", Survives.CLIENTS),
        ("nfs4", "full", Survives.RESTART),
        ("fuse.sshfs", "full", Survives.RESTART),
    ],
)
def test_where_an_sqlite_file_is_counts(filesystem, synchronous, survives) -> None:
    found = of_sqlite("wal", synchronous, filesystem)
    assert found.survives is survives
    assert bool(found.warnings) == (survives < Survives.POWER_CUT)


def test_the_innermost_mount_decides() -> None:
    mounts = "\n".join(
        [
            "1 0 8:1 / / rw - ext4 /dev/a rw",
            "2 1 0:2 / /srv rw,relatime shared:1 - xfs /dev/b rw",
            "3 2 0:3 / /srv/my\\040data rw - tmpfs tmpfs rw",
            "4 1 0:4 / /srv/my rw - nfs4 server:/x rw",
            "not a line of mountinfo",
        ]
    )
    assert filesystem_of("/home/q.db", mounts) == "ext4"
    assert filesystem_of("/srv/q.db", mounts) == "xfs"
    assert filesystem_of("/srv/my data/q.db", mounts) == "tmpfs"
    assert filesystem_of("/srv/my/q.db", mounts) == "nfs4"
    assert filesystem_of("/srv/mine/q.db", mounts) == "xfs"
    assert filesystem_of("/q.db", "") == ""


@pytest.mark.parametrize(
    ("changes", "survives", "names"),
    [
        ({}, Survives.POWER_CUT, ""),
        ({"synchronous_commit": "local"}, Survives.POWER_CUT, ""),
        ({"synchronous_standby_names": "ANY 1 (b)"}, Survives.DISK_LOSS, ""),
        (
            {"synchronous_standby_names": "b", "synchronous_commit": "local"},
            Survives.POWER_CUT,
            "",
        ),
        ({"synchronous_commit": "off"}, Survives.RESTART, "synchronous_commit"),
        ({"full_page_writes": "off"}, Survives.SERVER_CRASH, "full_page_writes"),
        ({"fsync": "off"}, Survives.RESTART, "fsync"),
        (
            {"fsync": "off", "synchronous_standby_names": "b"},
            Survives.RESTART,
            "fsync",
        ),
    ],
)
def test_postgresql_settings_decide(changes, survives, names) -> None:
    found = of_postgresql({**POSTGRESQL, **changes})
    assert found.survives is survives
    assert [names in warning.problem for warning in found.warnings] == ([True] if names else [])


@pytest.mark.parametrize(
    ("changes", "survives", "names"),
    [
        ({}, Survives.POWER_CUT, ""),
        ({"log_bin": "ON", "sync_binlog": "1"}, Survives.POWER_CUT, ""),
        ({"innodb_flush_log_at_trx_commit": "3"}, Survives.POWER_CUT, ""),
        ({"innodb_flush_log_at_trx_commit": "2"}, Survives.SERVER_CRASH, "trx_commit is 2"),
        ({"innodb_flush_log_at_trx_commit": "0"}, Survives.RESTART, "trx_commit is 0"),
        ({"log_bin": "1"}, Survives.SERVER_CRASH, "binary log"),
        ({"innodb_doublewrite": "OFF"}, Survives.SERVER_CRASH, "doublewrite"),
        ({"innodb_flush_method": "nosync"}, Survives.RESTART, "nosync"),
    ],
)
def test_mariadb_settings_decide(changes, survives, names) -> None:
    found = of_mariadb({**MARIADB, **changes}, INNODB)
    assert found.survives is survives
    assert [names in warning.problem for warning in found.warnings] == ([True] if names else [])


def test_a_table_without_transactions_is_named() -> None:
    found = of_mariadb(MARIADB, INNODB | {"Aria"})
    assert found.survives is Survives.CLIENTS
    assert "Aria" in found.warnings[0].problem


def test_settings_that_are_not_told_are_unknown() -> None:
    assert of_postgresql({}).survives is Survives.UNKNOWN
    assert of_mariadb({}, INNODB).survives is Survives.UNKNOWN
