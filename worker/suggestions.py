"""What a wrong name was probably meant to be, for the end of an error's text."""

from __future__ import annotations

from collections.abc import Iterable

from queue_core import nearest


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return ``did you mean 'that'?``, or ``otherwise`` if no name in ``known`` is like it."""
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean {near!r}?"


def hint(name: str, known: Iterable[str]) -> str:
    """Return the same after a semicolon, or nothing."""
    found = did_you_mean(name, known)
    return f"; {found}" if found else ""
