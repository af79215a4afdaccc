"""The demo's work, free of queues: counting what is in a Python source file.

Both sides of the demo's comparison use this module: the tasks, and the direct computation.
"""

from __future__ import annotations

import io
import sysconfig
import tokenize
from collections.abc import Iterable
from pathlib import Path

Counts = dict[str, int]

FIELDS = ("lines", "tokens", "functions", "classes", "broken")

_LAYOUT = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)


def library() -> Path:
    """Return the folder of the running Python's own standard library."""
    return Path(sysconfig.get_path("stdlib"))


def modules() -> list[str]:
    """Return every ``.py`` file of the standard library, relative to it, sorted."""
    root = library()
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    paths = (path.relative_to(root) for path in root.rglob("*.py") if path.is_file())
    return sorted(str(path) for path in paths if not foreign & set(path.parts))


def count(path: Path) -> Counts:
    """Read and tokenize one file; count lines, code tokens, functions and classes.

    A file that cannot be read, decoded or tokenized to its end counts as far as it went, and as one
    ``broken`` file: the standard library ships some on purpose, for its own tests.
    """
    found = dict.fromkeys(FIELDS, 0)
    try:
        source = path.read_bytes()
        found["lines"] = len(source.splitlines())
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type in _LAYOUT:
                continue
            found["tokens"] += 1
            if token.type == tokenize.NAME:
                found["functions"] += token.string == "def"
                found["classes"] += token.string == "class"
    except (OSError, SyntaxError, UnicodeError, tokenize.TokenError, ValueError):
        found["broken"] = 1
    return found


def total(parts: Iterable[Counts]) -> Counts:
    """Add counts."""
    result = dict.fromkeys(FIELDS, 0)
    for part in parts:
        for name in FIELDS:
            result[name] += part[name]
    return result
