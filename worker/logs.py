"""How a worker and its children log: for people, or one JSON object a line for programs."""

from __future__ import annotations

import logging
import time
from typing import Final, Literal

import msgspec

Format = Literal["pretty", "json"]

PRETTY: Final = "%(asctime)s.%(msecs)03d %(levelname)-5s %(message)s"
CLOCK: Final = "%H:%M:%S"


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
    handler.setFormatter(
        JsonFormatter() if style == "json" else logging.Formatter(PRETTY, datefmt=CLOCK)
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("pika").setLevel(logging.CRITICAL)
