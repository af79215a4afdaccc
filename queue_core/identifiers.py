"""Ids for messages and tasks, without asking the system for each.

An id needs random digits. Python lets other threads run during a system call, so whoever asks the
system for each id of many messages waits at each for the connection's thread; besides, it is not
free. So many are fetched at once. A forked process fetches its own: two processes never give the
same id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

from queue_core.process import process_id

__all__ = ["fresh_id", "fresh_uuid"]

_DIGITS: Final = 32
_AT_ONCE: Final = 256
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_stock: tuple[int, Iterator[str]] = (0, iter(()))
"""Whose it is, and what it still has. That an iterator of a list moves on is one step, which no
other thread interrupts."""


def fresh_id() -> str:
    """Return an id for one publish: unique, and rising with time, which indexes like (UUIDv7)."""
    return f"{time.time_ns():016x}{_digits()[:16]}"


def fresh_uuid() -> str:
    """Return a random UUID (version 4) as text."""
    text = _digits()
    variant = _VARIANTS[text[16]]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _digits() -> str:
    """Return hexadecimal digits that nobody can guess."""
    owner, stock = _stock
    if owner == process_id():
        for digits in stock:
            return digits
    return _fetch()


def _fetch() -> str:
    global _stock  # noqa: PLW0603 - what is true of the whole process
    text = os.urandom(_AT_ONCE * _DIGITS // 2).hex()
    first, *others = (text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS))
    _stock = (process_id(), iter(others))
    return first
