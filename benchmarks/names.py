"""Names of queues and tables: each run has its own, so that two runs do not meet on one server."""

from __future__ import annotations

import os

VARIABLE = "QUEUE_CORE_BENCH_RUN"


def start_run() -> None:
    """Give the processes that are started from now on names of their own."""
    os.environ[VARIABLE] = str(os.getpid())


def named(what: str) -> str:
    """A name for ``what`` in this run: letters, digits and underscores."""
    return f"qc_bench_{os.environ.get(VARIABLE, '0')}_{what}"
