r"""Which names match a pattern: globs and regular expressions, in a time that nobody can stretch.

A node compares its name with patterns that strangers send, before anything is known about them.
With `re` that is no good: ``(\w+-?)*!`` takes it minutes to compare with a name of thirty letters,
it cannot be interrupted, and meanwhile no thread of the process runs. So a regular expression is
compared here by keeping all the places where it may be at once (an automaton after Glushkov, 1961;
a set of places is one integer): each letter of the name costs one step, whatever the expression.

What such an automaton can do is what names need: letters, ``.``, classes, groups, ``|``, ``* + ?``
and ``{m,n}``, ``^`` at the beginning, and ``$``. Each means what it means to `re.match`. The rest
(references, looking around, flags) is refused by name. Patterns have up to `MAX_PATTERN` letters.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

MAX_PATTERN: Final = 255
"""Letters of a pattern; names have no more either."""
MAX_PLACES: Final = 500
"""Places in an expression when its repetitions are written out."""
_END: Final = ""

_TOKEN = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\[\\])*\])|(?P<open>\((?:\?:)?(?!\?))|(?P<close>\))"
    r"|(?P<choice>\|)|(?P<repeat>[*+?]|\{\d*,?\d*\})(?P<lazy>\??)|(?P<end>\$)|(?P<any>\.)"
    r"|(?P<plain>[^\\\[\]()|*+?{}^$.])"
)
_CLASSES: Final = "dDwWsS"
_ODD_SET = re.compile(r"--|&&|~~|\|\|")

_Test = Callable[[str], object]


class BadPattern(ValueError):
    """The pattern cannot be compared with names; the text says why."""


def matches(matcher: str, pattern: str, name: str) -> bool:
    """Return whether a name matches; ``matcher`` is ``glob`` or ``pcre``. Raises BadPattern."""
    if matcher == "glob":
        _check_length(pattern)
        return fnmatch.fnmatchcase(name, pattern)
    return expression(pattern).matches(name)


def check(matcher: str, pattern: str) -> None:
    """Raise BadPattern if names cannot be compared with this."""
    matches(matcher, pattern, "")


@functools.lru_cache(maxsize=64)
def expression(pattern: str) -> Expression:
    """Return a regular expression ready for comparing. Raises BadPattern."""
    _check_length(pattern)
    return Expression(_Parser(pattern).parse())


def _check_length(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise BadPattern(f"the pattern has {len(pattern)} letters; the limit is {MAX_PATTERN}")


class _Span(NamedTuple):
    """A part of an expression in the automaton: whether it may be empty, and its border places."""

    empty: bool
    first: int
    last: int


class Expression:
    """A regular expression as an automaton. Immutable once made; any thread."""

    def __init__(self, part: _Part) -> None:
        """Write out a parsed expression. Raises BadPattern if it is too large."""
        self._tests: list[_Test] = []
        self._next: list[int] = []
        self._whole = part.add_to(self)

    def matches(self, name: str) -> bool:
        """Return whether the expression matches from the beginning of the name."""
        may, whole = self._whole.first, self._whole
        if whole.empty:
            return True
        seen: dict[str, int] = {}
        for letter in (*name, *[_END] * len(self._tests)):
            if letter not in seen:
                seen[letter] = sum(1 << i for i, test in enumerate(self._tests) if test(letter))
            here = may & seen[letter]
            if here & whole.last:
                return True
            if not here:
                return False
            may = 0
            for place in _places(here):
                may |= self._next[place]
        return False

    # --- building ---------------------------------------------------------------------------------

    def place(self, test: _Test) -> _Span:
        """Add a place that one letter passes."""
        if len(self._tests) >= MAX_PLACES:
            raise BadPattern(f"it is too large: more than {MAX_PLACES} places when written out")
        self._tests.append(test)
        self._next.append(0)
        bit = 1 << (len(self._tests) - 1)
        return _Span(empty=False, first=bit, last=bit)

    def chain(self, left: _Span, right: _Span) -> _Span:
        """Let one follow the other."""
        for place in _places(left.last):
            self._next[place] |= right.first
        return _Span(
            left.empty and right.empty,
            left.first | (right.first if left.empty else 0),
            right.last | (left.last if right.empty else 0),
        )


_NOTHING: Final = _Span(empty=True, first=0, last=0)


def _places(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class _Part(Protocol):
    """A parsed part of an expression."""

    def add_to(self, expression: Expression) -> _Span: ...


class _Letter(NamedTuple):
    test: _Test

    def add_to(self, expression: Expression) -> _Span:
        return expression.place(self.test)


class _Sequence(NamedTuple):
    parts: tuple[_Part, ...]

    def add_to(self, expression: Expression) -> _Span:
        span = _NOTHING
        for part in self.parts:
            span = expression.chain(span, part.add_to(expression))
        return span


class _Choice(NamedTuple):
    options: tuple[_Part, ...]

    def add_to(self, expression: Expression) -> _Span:
        empty, first, last = False, 0, 0
        for option in self.options:
            span = option.add_to(expression)
            empty, first, last = empty or span.empty, first | span.first, last | span.last
        return _Span(empty, first, last)


class _Repeat(NamedTuple):
    part: _Part
    least: int
    most: int | None

    def add_to(self, expression: Expression) -> _Span:
        whole = _NOTHING
        copies = max(self.least, 1) if self.most is None else self.most
        for copy in range(1, copies + 1):
            span = self.part.add_to(expression)
            if not span.first:
                return whole  # it is empty, however often
            if self.most is None and copy == copies:
                expression.chain(span, span)
            whole = expression.chain(whole, span._replace(empty=span.empty or copy > self.least))
        return whole


class _Parser:
    """Reads one expression, from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 1 if pattern.startswith("^") else 0

    def parse(self) -> _Part:
        part = self._choice()
        if self._at < len(self._pattern):
            raise self._bad("a ) has no (")
        return part

    def _choice(self) -> _Part:
        options = [self._sequence()]
        while self._take("choice"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            part = self._single()
            if found := self._take("repeat"):
                part = self._repeated(part, found["repeat"])
            parts.append(part)
        return _Sequence(tuple(parts))

    def _single(self) -> _Part:
        found = _TOKEN.match(self._pattern, self._at)
        if found is None or found.lastgroup == "lazy":
            raise self._bad("this is not understood, or repeats what cannot be repeated")
        self._at = found.end()
        text, kind = found[0], found.lastgroup
        if kind == "open":
            part = self._choice()
            if not self._take("close"):
                raise self._bad("a ( has no )")
            return part
        return _Letter(self._test(str(kind), text))

    def _test(self, kind: str, text: str) -> _Test:
        if kind == "plain":
            return text.__eq__
        if kind == "end":
            return _END.__eq__
        if kind == "any":
            return re.compile(".").fullmatch
        if kind == "escape" and text[1] not in _CLASSES:
            if text[1].isalnum():
                raise self._bad(f"{text} is not supported")
            return text[1].__eq__
        if _ODD_SET.search(text):
            raise self._bad(f"{text} means different things to different people")
        try:
            return re.compile(text).fullmatch
        except re.error as error:
            raise self._bad(str(error)) from error

    def _repeated(self, part: _Part, how: str) -> _Part:
        if how in "*+?":
            return _Repeat(part, 1 if how == "+" else 0, 1 if how == "?" else None)
        least, comma, most = how[1:-1].partition(",")
        if not least and not most:
            raise self._bad(f"{how} is no number of times")
        low = int(least or 0)
        high = int(most) if most else None if comma else low
        if max(low, high or 0) > MAX_PATTERN or (high is not None and high < low):
            raise self._bad(f"{how} is no number of times up to {MAX_PATTERN}")
        return _Repeat(part, low, high)

    def _take(self, kind: str) -> re.Match[str] | None:
        """Take the next token if it is of this kind."""
        found = _TOKEN.match(self._pattern, self._at)
        if found is None or found[kind] is None:
            return None
        self._at = found.end()
        return found

    def _bad(self, why: str) -> BadPattern:
        return BadPattern(
            f"{self._pattern!r} cannot be compared with names: at letter {self._at + 1}: {why}"
        )
