"""Processes that open a database broker with an invented newer version: ``upgrader.py URL COUNT``.

They are forked from this one, which has loaded what they need and is not connected, and all open
in the same moment; each says which version it found then.
"""

from __future__ import annotations

import os
import sys
import traceback

from queue_core import Connection
from queue_core.registry import find_transport
from queue_core.transport import SessionOptions
from queue_core.transports.sql import schema
from queue_core.url import parse

STEPS = (
    ("ALTER TABLE queue_core_message ADD COLUMN colour VARCHAR(9)",),
    (
        "CREATE TABLE queue_core_more (number INTEGER)",
        "CREATE INDEX queue_core_more_number ON queue_core_more (number)",
    ),
)


def upgrade(url: str) -> None:
    find_transport(parse(url).scheme).open(parse(url), SessionOptions(keeper=False)).close()
    os.write(1, f"{Connection.schema(url).found}\n".encode())


def main(url: str, count: int) -> None:
    schema.STEPS = STEPS
    find_transport(parse(url).scheme)  # what takes long is loaded before the start
    starting, held = os.pipe()
    for _ in range(count):
        if not os.fork():
            try:
                os.close(held)
                os.read(starting, 1)  # until nobody holds the other end any more
                upgrade(url)
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(0)
    os.close(held)
    for _ in range(count):
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
