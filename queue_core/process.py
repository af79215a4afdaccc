"""Which process this is, told without asking the system.

A session, its sockets and its locks belong to the process that made them, so each call looks
whether it is still that one. A system call takes as long as five function calls, and a publish
looks three times: so the number is kept here, and a forked child notes its own before anything else
runs in it.
"""

from __future__ import annotations

import os

__all__ = ["process_id"]

_own = os.getpid()


def process_id() -> int:
    """Return the number of this process, as `os.getpid` does."""
    return _own


def _note() -> None:
    global _own  # noqa: PLW0603 - what is true of the whole process
    _own = os.getpid()


os.register_at_fork(after_in_child=_note)
