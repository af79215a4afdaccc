"""What is said when an app is not imported, or cannot be; apart, for commands that import none."""

from __future__ import annotations

from queue_core import ConfigError


class NotStarted(Exception):
    """Somebody wanted the pool to end before the app was imported."""


class AppNotFound(ConfigError):
    """The app cannot be imported.

    Attributes:
        error: what is wrong, one line.
        because: why, or empty.
        advice: what to try, or empty.
        trace: the traceback of the app's own failure, or empty.
    """

    def __init__(self, error: str, because: str = "", advice: str = "", trace: str = "") -> None:
        """Keep the parts for the command line."""
        self.error = error
        self.because = because
        self.advice = advice
        self.trace = trace
        super().__init__("; ".join(part for part in (error, because, advice) if part))
