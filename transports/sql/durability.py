"""What a database keeps of what it committed, from its settings. Pure.

One function for each database; its dialect asks for the settings (`Dialect.durability`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from queue_core.durability import Durability, Survives

POSTGRESQL_SETTINGS: Final = (
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
)
"""Names in ``pg_settings`` that `of_postgresql` looks at."""

MARIADB_SETTINGS: Final = (
    "innodb_doublewrite",
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "log_bin",
    "sync_binlog",
)
"""System variables that `of_mariadb` looks at."""


class _Rule(NamedTuple):
    """With one of these values the setting has this consequence."""

    setting: str
    values: tuple[str, ...]
    most: Survives
    problem: str
    remedy: str


_POSTGRESQL_RULES: Final = (
    _Rule(
        "synchronous_commit",
        ("off",),
        Survives.RESTART,
        "a crash of the server loses what was confirmed in the last moments, about three times "
        "wal_writer_delay",
        "ALTER DATABASE ... SET synchronous_commit = on, and ALTER ROLE if it is set there",
    ),
    _Rule(
        "full_page_writes",
        ("off",),
        Survives.SERVER_CRASH,
        "a power cut may leave half-written pages, which nothing repairs",
        "set full_page_writes = on in postgresql.conf, and reload",
    ),
    _Rule(
        "fsync",
        ("off",),
        Survives.RESTART,
        "a power cut or a crash of the machine may damage the whole database",
        "set fsync = on in postgresql.conf, and reload",
    ),
)
_MARIADB_RULES: Final = (
    _Rule(
        "innodb_flush_log_at_trx_commit",
        ("0",),
        Survives.RESTART,
        "a crash of the server loses what was confirmed in the last second",
        "set innodb_flush_log_at_trx_commit = 1",
    ),
    _Rule(
        "innodb_flush_log_at_trx_commit",
        ("2",),
        Survives.SERVER_CRASH,
        "a power cut may take what was confirmed in the last second",
        "set innodb_flush_log_at_trx_commit = 1",
    ),
    _Rule(
        "innodb_doublewrite",
        ("0", "off"),
        Survives.SERVER_CRASH,
        "a power cut may leave half-written pages, which nothing repairs",
        "set innodb_doublewrite = ON",
    ),
    _Rule(
        "innodb_flush_method",
        ("nosync", "littlesync"),
        Survives.RESTART,
        "a power cut may damage the whole database",
        "set innodb_flush_method = O_DIRECT",
    ),
)
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"}
)


def of_sqlite(journal: str, synchronous: str, filesystem: str) -> Durability:
    """Judge an SQLite file.

    Args:
        journal: ``PRAGMA journal_mode``.
        synchronous: how commits that are to last are made: "normal", "full" or "extra".
        filesystem: the type of the file system that it is on; empty if nobody knows.
    """
    found = f"journal_mode {journal}, synchronous {synchronous}"
    durability = Durability(
        Survives.POWER_CUT, f"{found}, on {filesystem}" if filesystem else found
    )
    if filesystem in _VOLATILE:
        return durability.weakened(
            Survives.CLIENTS,
            f"the file is in memory ({filesystem}): all messages are lost when the machine "
            "restarts",
            "put it on a disk",
        )
    if filesystem in _REMOTE or filesystem.startswith("fuse."):
        return durability.weakened(
            Survives.RESTART,
            f"the file is on {filesystem}, where locks and syncs may not hold what SQLite needs: "
            "it can be damaged when two machines use it, or when one crashes",
            "put it on a local disk",
        )
    if synchronous == "normal":
        return durability.weakened(
            Survives.SERVER_CRASH,
            "a power cut may take what was confirmed since the last checkpoint",
            "remove synchronous=normal from the URL",
        )
    return durability


def of_postgresql(settings: Mapping[str, str]) -> Durability:
    """Judge a PostgreSQL session by its `POSTGRESQL_SETTINGS`; a missing one is unknown."""
    commit = settings.get("synchronous_commit", "")
    if not commit or "fsync" not in settings:
        return Durability(found="pg_settings does not tell fsync and synchronous_commit")
    found = f"fsync {settings['fsync']}, synchronous_commit {commit}"
    standbys = settings.get("synchronous_standby_names", "")
    if standbys and commit in ("on", "remote_apply"):
        best = Durability(Survives.DISK_LOSS, f"{found}, synchronous_standby_names {standbys!r}")
    else:
        best = Durability(Survives.POWER_CUT, found)
    return _judged(best, settings, _POSTGRESQL_RULES)


def of_mariadb(settings: Mapping[str, str], engines: frozenset[str]) -> Durability:
    """Judge a MariaDB server by its `MARIADB_SETTINGS`; a missing one is unknown.

    ``engines`` are those of our tables.
    """
    flush = settings.get("innodb_flush_log_at_trx_commit", "")
    if not flush:
        return Durability(found="the server does not tell innodb_flush_log_at_trx_commit")
    words = f"innodb_flush_log_at_trx_commit {flush}"
    logged = settings.get("log_bin", "").lower() in ("1", "on")
    if logged:
        words += f", sync_binlog {settings.get('sync_binlog', '')}"
    found = _judged(Durability(Survives.POWER_CUT, words), settings, _MARIADB_RULES)
    if logged and settings.get("sync_binlog") != "1":
        found = found.weakened(
            Survives.SERVER_CRASH,
            "a power cut may take what was confirmed last, since recovery undoes what the binary "
            "log does not have",
            "set sync_binlog = 1",
        )
    others = sorted(engine for engine in engines if engine.lower() != "innodb")
    if others:
        found = found.weakened(
            Survives.CLIENTS,
            f"tables of ours have the engine {', '.join(others)}, which has no transactions",
            "ALTER TABLE ... ENGINE = InnoDB",
        )
    return found


def _judged(best: Durability, settings: Mapping[str, str], rules: Sequence[_Rule]) -> Durability:
    for rule in rules:
        value = settings.get(rule.setting, "")
        if value.lower() in rule.values:
            problem = f"{rule.problem} ({rule.setting} is {value})"
            best = best.weakened(rule.most, problem, rule.remedy)
    return best


def filesystem_of(path: str, mounts: str) -> str:
    """Return the type of the file system that ``path`` (real, absolute) is on.

    ``mounts`` is the text of ``/proc/self/mountinfo``. Empty if it does not tell.
    """
    best, found = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, right.split(" ", 1)[0]
    return found
