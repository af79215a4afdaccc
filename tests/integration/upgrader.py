"""A process that opens a database broker with an invented newer version: ``upgrader.py URL``.

It says "ready", and opens when it is told to; then it says which version it found.
"""

from __future__ import annotations

import sys

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


def main(url: str) -> None:
    schema.STEPS = STEPS
    find_transport(parse(url).scheme)  # what takes long is loaded before the start
    print("ready", flush=True)
    sys.stdin.readline()
    find_transport(parse(url).scheme).open(parse(url), SessionOptions(keeper=False)).close()
    print(Connection.schema(url).found, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
