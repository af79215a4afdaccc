"""What programs say to a mailbox, checked where they say it: a wrong argument is refused by name.

What strangers send is another matter: see `queue_core.mailbox.wire`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from queue_core import ConfigError, check_kind
from queue_core.mailbox.matching import BadPattern, check
from queue_core.mailbox.wire import MAX_WORD, Address


def names_of(destinations: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once. Raises ConfigError."""
    if isinstance(destinations, str):
        raise ConfigError(f"destinations is a list of names; for one node say [{destinations!r}]")
    if not destinations:
        raise ConfigError("name at least one node, or use multi_call or abcast for all")
    names = tuple(dict.fromkeys(destinations))
    for name in names:
        if not name or not isinstance(name, str):
            raise ConfigError(f"a node's name is a string, not {name!r:.60}")
    return names


def address_of(match: str | None, regex: str | None, labels: Mapping[str, str] | None) -> Address:
    """Return the address of all nodes that these are true of. Raises ConfigError."""
    if match is not None and regex is not None:
        raise ConfigError("give match or regex, not both")
    pattern, matcher, what = (regex, "pcre", "regex") if match is None else (match, "glob", "match")
    if pattern is None:
        return Address(labels=labels_of(labels))
    check_kind(what, pattern, str, "a string")
    try:
        check(matcher, pattern)
    except BadPattern as error:
        raise ConfigError(str(error)) from error
    return Address(None, pattern, matcher, labels_of(labels))


def labels_of(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of labels. Raises ConfigError."""
    if labels is None:
        return {}
    check_kind("labels", labels, Mapping, "a mapping of strings to strings")
    for label in labels.items():
        if not all(isinstance(part, str) for part in label):
            raise ConfigError(f"labels is a mapping of strings to strings, without {label!r:.60}")
    return dict(labels)


def check_command(method: str, arguments: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigError unless nodes would take it for a command."""
    check_kind("method, the name of a command,", method, str, "a string")
    if not method or len(method) > MAX_WORD or not method.isprintable():
        raise ConfigError(
            f"method, the name of a command, is 1 to {MAX_WORD} printable letters, not "
            f"{method!r:.60}"
        )
    if arguments is None:
        return
    check_kind("arguments", arguments, Mapping, "a mapping of names to values")
    for name in arguments:
        check_kind("the name of one of the arguments", name, str, "a string")
