"""Which tasks a group has, kept in a key-value store under its id: any process can wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from queue_core import KeyValue

PREFIX = "celery-taskset-meta-"


def save_group(store: KeyValue, group_id: str, ids: Sequence[str], *, ttl: float | None) -> None:
    """Keep the ids of a group's tasks for ``ttl`` seconds. Blocks for a round trip."""
    body = {"result": [[group_id, None], [[[task_id, None], None] for task_id in ids]]}
    store.key_set(PREFIX + group_id, msgspec.json.encode(body), ttl=ttl)


def load_group(store: KeyValue, group_id: str) -> list[str] | None:
    """Return the ids of a group's tasks, None if it is not there. Blocks for a round trip."""
    entry = store.key_get(PREFIX + group_id)
    if entry is None:
        return None
    found: list[str] = []
    match msgspec.json.decode(entry.value, type=dict[str, Any]).get("result"):
        case [_, [*members]]:
            for member in members:
                match member:
                    case [[str(task_id), *_], *_]:
                        found.append(task_id)
    return found


def delete_group(store: KeyValue, group_id: str) -> None:
    """Forget it. Blocks for a round trip."""
    store.key_delete(PREFIX + group_id)
