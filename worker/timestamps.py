"""Points in time: the present, and those in messages: ISO 8601, with a zone or without."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from queue_core import ConfigError
from queue_core.worker.blueprint import load

logger = logging.getLogger(__name__)

LONGEST: Final = 40 * 86_400.0
"""For how many seconds a broker is asked to keep a message, or to keep it back.

RabbitMQ cannot do so for more than 49 days. What is to wait longer says so itself, and goes back.
"""


def utcnow() -> datetime:
    """Return the present, in UTC."""
    return datetime.now(UTC)


def zone_of(name: str) -> tzinfo:
    """Return the zone of this name. Raises ConfigError if there is none."""
    if name == "UTC":
        return UTC
    try:
        zone: tzinfo = load("zoneinfo:ZoneInfo")(name)  # few need it
    except (KeyError, ValueError) as error:
        raise ConfigError(f"there is no timezone {name!r}") from error
    return zone


def instant(what: str, value: object, zone: tzinfo = UTC) -> datetime:
    """Return a point in time from one, or from its ISO 8601 form; in ``zone`` if it says none.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConfigError(f"{what} {value!r:.60} is no ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise ConfigError(f"{what} is a datetime, not {type(value).__name__}")
    return value if value.tzinfo is not None else value.replace(tzinfo=zone)


def later(what: str, now: datetime, wait: float) -> str:
    """Return the point in time that is ``wait`` seconds after ``now``, as ISO 8601.

    Raises:
        ConfigError: there is none.
    """
    try:
        return (now + timedelta(seconds=wait)).isoformat()
    except OverflowError:
        raise ConfigError(f"{what} in {wait:g} s is after the year 9999") from None


def seconds(what: str, value: object) -> float:
    """Return a number of seconds, or those of a timedelta; what is over is 0.

    Raises:
        ConfigError: it is neither, or not finite.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{what} is a number of seconds, not {value!r:.60}")
    return max(0.0, float(value))


def seconds_to_wait(options: Mapping[str, Any], zone: tzinfo, now: datetime) -> float:
    """Return how long ``countdown`` says to wait, or else ``eta``; 0 if neither does.

    Raises:
        ConfigError: it is no time.
    """
    if options.get("countdown") is not None:
        return seconds("countdown", options["countdown"])
    if options.get("eta") is None:
        return 0.0
    return max(0.0, (instant("eta", options["eta"], zone) - now).total_seconds())


def seconds_until(moment: object, what: str, zone: tzinfo = UTC) -> float | None:
    """Return how long it is until an ISO 8601 time, negative if it is over.

    None if there is none, or it is not understood, which is logged. ``zone`` as for `instant`.
    """
    if moment is None:
        return None
    try:
        return (instant(what, moment, zone) - utcnow()).total_seconds()
    except ConfigError:
        logger.warning("the %s %.60r of a task is no ISO 8601 time; it is ignored", what, moment)
        return None
