"""Options of tasks that the settings say: ``task_annotations``.

It is a dict from names of tasks to options, ``{"shop.mail": {"rate_limit": "1/s"}}``; ``*`` and
other globs stand for several. Or an object whose ``annotate(task)`` and ``annotate_any()`` return
options or None, or a list of all these. A hook such as ``on_failure`` is a function that gets the
task first, like a method. The later of a list goes before the earlier; in a dict a full name goes
before globs, a later glob before an earlier one, and all before ``*``. They go before what stands
at the task. Pure but for those objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from queue_core import ConfigError
from queue_core.worker.blueprint import load
from queue_core.worker.routes import as_key, is_pattern, matches


def annotations_of(setting: object, task: Any) -> dict[str, Any]:
    """Return the options that the setting has for a task.

    Raises:
        ConfigError: the setting is none of what it may be.
    """
    found: dict[str, Any] = {}
    for item in _items(setting):
        for options in _said(item, task):
            for name in options:
                if not isinstance(name, str) or name.startswith("@"):
                    raise ConfigError(
                        f"task_annotations: {name!r} is no option of a task; app.middleware puts "
                        "a function around runs"
                    )
            found.update(options)
    return found


def _items(setting: object) -> Iterator[object]:
    if setting is None:
        return
    for item in setting if isinstance(setting, list | tuple) else (setting,):
        if isinstance(item, str):
            item = load(item if ":" in item else ":".join(item.rsplit(".", 1)))
            if isinstance(item, type):
                item = item()
        yield item


def _said(item: object, task: Any) -> Iterator[Mapping[str, Any]]:
    """Yield what one item says of a task, the weakest first."""
    if isinstance(item, Mapping):
        keys = {as_key(key): options for key, options in item.items()}
        for key in sorted(keys, key=_strength):
            if matches(key, task.name):
                if not isinstance(keys[key], Mapping):
                    raise ConfigError(f"task_annotations[{key!r}] is a dict of options of a task")
                yield keys[key]
        return
    if not hasattr(item, "annotate") and not hasattr(item, "annotate_any"):
        raise ConfigError(f"task_annotations: neither a dict nor an annotation: {item!r:.60}")
    for method, args in (("annotate_any", ()), ("annotate", (task,))):
        options = getattr(item, method, lambda *_: None)(*args)
        if options is not None:
            yield options


def _strength(key: str) -> int:
    if key == "*":
        return 0
    return 1 if is_pattern(key) else 2
