"""What differs between versions of RabbitMQ, as decisions: pure.

Everything else here is the same from 3.10 on. What is said of 4.x rests on its documentation; it
was not run. A server that is not RabbitMQ, or does not say its version, counts as an old one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBERS = re.compile(r"(\d+)\.(\d+)")


def version_of(properties: Mapping[str, Any]) -> tuple[int, int]:
    """Return major and minor number; ``properties`` are those that the server sent."""
    if properties.get("product") != "RabbitMQ":
        return (0, 0)
    found = _NUMBERS.match(str(properties.get("version", "")))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def cancel_means_deleted(properties: Mapping[str, Any]) -> bool:
    """Whether a consumer that the server cancels has lost its queue.

    From 4.3 on a quorum queue cancels also who is too late with an ack (``consumer_timeout``);
    before, that ended the channel.
    """
    return version_of(properties) < (4, 3)


def may_refuse_transient(properties: Mapping[str, Any]) -> bool:
    """Whether a queue that is neither durable nor exclusive may be refused.

    That ends the whole connection (541): by default from 4.3 on, by configuration before.
    """
    return version_of(properties) >= (4, 0)
