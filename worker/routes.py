"""Where a task goes: which queue, and through which exchange with which key.

Four may say it, each stronger than the one before: the default queue, ``task_routes``, the task's
own options, and the call. Who names a queue or an exchange decides on the whole destination; a
routing key alone is combined with what weaker ones say. Other options - ``priority``, ``expires``
... - are taken one by one.

``task_routes`` is a dict from names of tasks to routes, or a list of such dicts and of functions,
asked in their order; the first one that answers counts. In a dict a full name goes before patterns,
and patterns go in their order: globs (``shop.*``) and compiled regular expressions, which as text
begin with ``re:``. A route is the name of a queue, or options as for sending. A function is called
with ``(name, args, kwargs, options, task=...)`` and returns a route or None. Pure but for those
functions.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from queue_core import ConfigError, Exchange, Queue, UsageError
from queue_core.worker.blueprint import load
from queue_core.worker.settings import Settings, plain_queue
from queue_core.worker.suggestions import did_you_mean

DESTINATION: Final = frozenset(["queue", "exchange", "routing_key"])

Options = Mapping[str, Any]
Function = Callable[..., Any]

ROUTE_OPTIONS: Final = frozenset(
    [
        *DESTINATION,
        "priority",
        "serializer",
        "compression",
        "expires",
        "headers",
        "countdown",
        "time_limit",
        "soft_time_limit",
        "ignore_result",
        "shadow",
    ]
)
"""What a route may say."""


class Rule(NamedTuple):
    """One rule of ``task_routes``.

    Attributes:
        words: what it is, for people.
        key: the name, the glob, or the regular expression as text; empty for a function.
        says: its options, or the function.
    """

    words: str
    key: str
    says: Options | Function

    def matches(self, name: str) -> bool:
        """Whether it is about the task of this name; a function has to be asked."""
        return not self.key or matches(self.key, name)


class Routed(NamedTuple):
    """What a rule says of one task."""

    options: Options
    rule: Rule


def matches(key: str, name: str) -> bool:
    """Whether a name, a glob or ``re:`` and a regular expression fits the name of a task."""
    if key.startswith("re:"):
        return re.match(key[3:], name) is not None
    return name == key if not is_pattern(key) else fnmatch.fnmatchcase(name, key)


def is_pattern(key: str) -> bool:
    """Whether it stands for several names."""
    return key.startswith("re:") or any(char in key for char in "*?[")


def as_key(key: object) -> str:
    """Return a name or pattern as text; raises ConfigError if it is none."""
    text = f"re:{key.pattern}" if isinstance(key, re.Pattern) else key
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{key!r:.60} is no name of a task, and no pattern")
    if text.startswith("re:"):
        try:
            re.compile(text[3:])
        except re.error as error:
            raise ConfigError(f"{text!r} is no regular expression: {error}") from error
    return text


def specific_first(keys: Iterable[str]) -> list[str]:
    """Full names before patterns, each in their order."""
    return sorted(keys, key=is_pattern)


class Router:
    """The rules of ``task_routes``."""

    def __init__(self, routes: object = None) -> None:
        """Read the setting. Raises ConfigError for what is no route, with the reason."""
        self.rules = list(_rules(routes))
        self.static = all(rule.key for rule in self.rules)
        """The name of a task is all that matters."""

    def find(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Options | None = None,
        task: object = None,
    ) -> Routed | None:
        """Return what the first rule that answers says; None: no rule does.

        Raises:
            ConfigError: a function returned what is no route.
        """
        for rule in self.rules:
            if rule.matches(name):
                said: object = rule.says
                if not rule.key and callable(said):
                    said = said(name, args, dict(kwargs or {}), dict(options or {}), task=task)
                    if said is None:
                        continue
                    said = _route(said, rule.words)
                assert isinstance(said, Mapping)
                return Routed(said, rule)
        return None

    def queues(self) -> list[Queue]:
        """Return the queues that rules name as values."""
        said = [rule.says.get("queue") for rule in self.rules if isinstance(rule.says, Mapping)]
        return [queue for queue in said if isinstance(queue, Queue)]

    def portable(self) -> list[dict[str, dict[str, Any]]] | None:
        """Return the rules that another process can use, as a value of the setting.

        Functions are left out, and queues are named.
        """
        found = []
        for rule in self.rules:
            if rule.key and isinstance(rule.says, Mapping):
                said = {
                    name: value.name if isinstance(value, Queue) else value
                    for name, value in rule.says.items()
                }
                found.append({rule.key: said})
        return found or None


def merged(weaker: Options, stronger: Options) -> dict[str, Any]:
    """Return the options of two, neither of which says None for anything."""
    if "queue" in stronger or "exchange" in stronger:
        weaker = {name: value for name, value in weaker.items() if name not in DESTINATION}
    return {**weaker, **stronger}


class QueueDefinitions:
    """The definitions of queues by name. Immutable but for what it was not asked before."""

    def __init__(self, settings: Settings, more: Iterable[Queue] = ()) -> None:
        """Know the queues of the settings, and ``more`` that tasks name as values."""
        self._settings = settings
        known = [*settings.task_queues, *more]
        self._known = {queue.name: self._completed(queue) for queue in reversed(known)}
        default = settings.task_default_queue
        if default not in self._known:
            self._known[default] = self._completed(_default_queue(settings))

    def find(self, queue: Queue | str | None = None) -> Queue:
        """Return the definition of a queue, by default that of the default queue.

        Raises:
            UsageError: it is not known, and shall not be made.
        """
        if isinstance(queue, Queue):
            return queue
        name = queue or self._settings.task_default_queue
        found = self._known.get(name)
        if found is not None:
            return found
        if not self._settings.task_create_missing_queues:
            instead = did_you_mean(name, self._known, f"there are {', '.join(self._known)}")
            raise UsageError(
                f"queue {name!r} is not in task_queues, and task_create_missing_queues is False; "
                f"{instead}"
            )
        kind = self._settings.task_create_missing_queue_type
        return plain_queue(name, kind, self._settings.task_queue_max_priority)

    def origin(self, name: str) -> str:
        """Say where the definition of a queue comes from."""
        if name in {queue.name for queue in self._settings.task_queues}:
            return "in task_queues"
        if name == self._settings.task_default_queue:
            return "by task_default_queue and what belongs to it"
        return "nowhere, it is made when it is needed"

    def _completed(self, queue: Queue) -> Queue:
        priority = self._settings.task_queue_max_priority
        if priority is None or queue.max_priority is not None:
            return queue
        fields = {name: getattr(queue, name) for name in Queue.__struct_fields__}
        return Queue(**{**fields, "max_priority": priority})


def _default_queue(settings: Settings) -> Queue:
    name = settings.task_default_queue
    return Queue(
        name,
        exchange=Exchange(
            settings.task_default_exchange or name,
            settings.task_default_exchange_type,  # type: ignore[arg-type] # checked when read
        ),
        routing_key=settings.task_default_routing_key or name,
        queue_type=settings.task_default_queue_type,  # type: ignore[arg-type]
    )


# --- reading the setting -------------------------------------------------------------------------


def _rules(routes: object) -> Iterator[Rule]:
    if routes is None or routes == ():
        return
    several = isinstance(routes, list | tuple) and not _is_pairs(routes)
    for number, item in enumerate(
        routes if isinstance(routes, list | tuple) and several else [routes]
    ):
        label = f"task_routes[{number}]" if several else "task_routes"
        if isinstance(item, Mapping):
            yield from _of_dict(item, label)
        elif isinstance(item, list | tuple):
            if not _is_pairs(item):
                raise ConfigError(f"{label} is a list, but not of (name, route)")
            yield from _of_dict(dict(item), label)
        else:
            yield _of_function(item, label)


def _is_pairs(found: object) -> bool:
    """Whether it is a list of (name or pattern, route)."""
    return (
        isinstance(found, list | tuple)
        and bool(found)
        and all(
            isinstance(item, list | tuple)
            and len(item) == 2
            and isinstance(item[0], str | re.Pattern)
            for item in found
        )
    )


def _of_dict(routes: Mapping[Any, Any], label: str) -> Iterator[Rule]:
    said = {as_key(key): route for key, route in routes.items()}
    for key in specific_first(said):
        words = f"{label}[{key!r}]"
        yield Rule(words, key, _route(said[key], words))


def _of_function(found: object, label: str) -> Rule:
    if isinstance(found, str):
        found = load(found if ":" in found else ":".join(found.rsplit(".", 1)))
    method = getattr(found() if isinstance(found, type) else found, "route_for_task", None)
    if method is not None:

        def ask(name: str, args: Any, kwargs: Any, _options: Any, task: object = None) -> Any:
            return method(name, args, kwargs)

        return Rule(f"{label}, {type(found).__name__}.route_for_task", "", ask)
    if not callable(found):
        raise ConfigError(f"{label} is neither a dict nor a function: {found!r:.60}")
    return Rule(f"{label}, function {getattr(found, '__qualname__', found)}", "", found)


def _route(said: object, words: str) -> dict[str, Any]:
    """Return the options of a route. Raises ConfigError if it is none."""
    if isinstance(said, str | Queue):
        return {"queue": said}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{words}: a route is the name of a queue, or a dict, not {said!r:.60}")
    for option in said:
        if option not in ROUTE_OPTIONS:
            known = sorted(ROUTE_OPTIONS)
            instead = did_you_mean(str(option), known, f"it has {', '.join(known)}")
            raise ConfigError(f"{words}: a route has no {option!r}; {instead}")
    return {name: value for name, value in said.items() if value is not None}
