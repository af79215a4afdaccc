"""The Lua scripts, each made of its own file and the parts that it uses.

A script runs as one atomic step, but an error half-way keeps what was written before it. So every
script reads first, and no command can fail after the first write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Final

__all__ = ["Script", "load_scripts"]

_BASE: Final = ("plan", "common")
_QUEUE: Final = ("plan", "common", "queue", "settling", "claims", "fates")
_PARTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "open": _BASE,
        "append": (),
        "put": _QUEUE,
        "claim": _QUEUE,
        "interrupt": _BASE,
        "release": _QUEUE,
        "collect": _QUEUE,
        "session": _QUEUE,
        "end_session": _QUEUE,
        "queues": _QUEUE,
        "table": _QUEUE,
        "value": _BASE,
    }
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its name, for errors, its text, and the digest by which the server knows it."""

    name: str
    text: bytes
    digest: bytes


def load_scripts(clock: str | None = None) -> Mapping[str, Script]:
    """Read all scripts from the package.

    ``clock`` is the Lua text of another function ``clock``, for tests; it may use KEYS and ARGV.
    """
    folder = files(__name__)
    texts = {
        name: folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
        for name in {*_PARTS, *_QUEUE, "clock"}
    }
    texts["clock"] = clock or texts["clock"]
    scripts = {}
    for name, parts in _PARTS.items():
        text = "\n".join(texts[part] for part in ("clock", *parts, name)).encode()
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        scripts[name] = Script(name, text, digest)
    return MappingProxyType(scripts)
