"""How a worker and its children log: for people, or one JSON object a line for programs."""

from __future__ import annotations

import logging
import time
from typing import Final, Literal

import msgspec

Format = Literal["pretty", "json"]

PRETTY: Final = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"
CLOCK: Final = "%H:%M:%S"


_OURS: Final = "queue_core"
_ESCAPES: Final = {
    number: repr(chr(number))[1:-1] for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}


class PrettyFormatter(logging.Formatter):
    """A line for people. What we quote from messages begins no new line that looks like ours."""

    def __init__(self) -> None:
        """Set the form of the line."""
        super().__init__(PRETTY, datefmt=CLOCK)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; in those of tasks line breaks stay what they are."""
        line = super().formatMessage(record)
        ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
        return line.translate(_ESCAPES) if ours else line


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, pid, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


def configure(level: str, style: Format = "pretty") -> None:
    """Log to stderr from this level on.

    What pika says at length is in the errors of the connection, too.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else PrettyFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("pika").setLevel(logging.CRITICAL)
