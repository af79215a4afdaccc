"""For how long a task is tried to be sent while the broker is away: ``retry_policy``.

Here it is a time, ``timeout``: the connection tries as often as it likes until then. celery counts
attempts with pauses between them; such a policy is understood as the time that it would take. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from queue_core import ConfigError
from queue_core.worker.suggestions import did_you_mean

HURRY: Final = 1.0
"""Seconds of one attempt, in which a connection that was just lost may come back."""
EVER: Final = 365 * 86400.0

_CELERYS: Final = {
    "max_retries": 3,
    "interval_start": 0.0,
    "interval_step": 0.2,
    "interval_max": 0.2,
}
_KEYS: Final = ("timeout", *_CELERYS)


def read_policy(value: object) -> dict[str, Any]:
    """Return a policy. Raises ConfigError, with the nearest key, if it is none."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"a dict of {', '.join(_KEYS)} was expected, not {value!r:.60}")
    for key, said in value.items():
        if key not in _KEYS:
            instead = did_you_mean(str(key), _KEYS, f"it has {', '.join(_KEYS)}")
            raise ConfigError(f"a retry_policy has no {key!r}; {instead}")
        number = isinstance(said, int | float) and not isinstance(said, bool) and said >= 0
        if not number and not (said is None and key in ("timeout", "max_retries")):
            raise ConfigError(f"{key} of a retry_policy is a number, not {said!r:.60}")
    return dict(value)


def patience(policy: Mapping[str, Any]) -> float | None:
    """Return the seconds that a policy allows; None: it says nothing.

    celery's: the sum of its pauses, and one attempt; ``max_retries`` of None is `EVER`.
    """
    if policy.get("timeout") is not None:
        return float(policy["timeout"])
    if not set(policy) & set(_CELERYS):
        return None
    said = {**_CELERYS, **policy}
    if said["max_retries"] is None:
        return EVER
    pauses: list[float] = [
        min(said["interval_start"] + number * said["interval_step"], said["interval_max"])
        for number in range(min(int(said["max_retries"]), 100_000))
    ]
    return HURRY + min(EVER, sum(pauses))
