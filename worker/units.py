"""Durations and sizes as people write them: ``90s``, ``2h``, ``500M``. Pure."""

from __future__ import annotations

import re
from typing import Final

# Patterns are texts: compiling one takes longer than importing this module, and few are needed.
_DURATION: Final = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)"
_SECONDS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = r"(\d+)\s*(|K|M|G)(I?B)?"
_BYTES: Final = {"K": 2**10, "M": 2**20, "G": 2**30}


def seconds_of(text: str) -> float | None:
    """Return the seconds that ``30``, ``250ms``, ``10s``, ``5m``, ``2h`` or ``1d`` are.

    None if the text is no duration.
    """
    found = re.fullmatch(_DURATION, text.strip().lower())
    return None if found is None else float(found[1]) * _SECONDS[found[2]]


def bytes_of(text: str, *, alone: int = 1) -> int | None:
    """Return the bytes that ``300000K``, ``500M`` or ``2G`` are; None if the text is no size.

    A number ``alone`` is so many bytes.
    """
    found = re.fullmatch(_SIZE, text.strip().upper())
    return None if found is None else int(found[1]) * _BYTES.get(found[2], 1 if found[3] else alone)
