"""The signals by which a task is ended, as commands name them. Pure."""

from __future__ import annotations

from signal import SIGTERM, Signals

from queue_core import UsageError, nearest


def signal_number(said: str | int | None) -> int:
    """Return the number of a signal: ``"SIGTERM"``, ``"term"``, 15, or None for SIGTERM.

    Raises:
        UsageError: there is no such signal; names the nearest.
    """
    if said is None or said == "":
        return int(SIGTERM)
    text = str(said).upper()
    name = text.removeprefix("SIG")
    try:
        return int(Signals(int(text)) if text.isdigit() else Signals[f"SIG{name}"])
    except (KeyError, ValueError):
        near = nearest(name, [signal.name.removeprefix("SIG") for signal in Signals])
        advice = f"did you mean 'SIG{near}'?" if near else "SIGTERM and SIGKILL are two"
        raise UsageError(f"there is no signal {said!r}; {advice}") from None
