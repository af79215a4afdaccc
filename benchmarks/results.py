"""Rows of samples, their medians, and looking them up. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Row:
    """What one contestant did in one case on one broker.

    Attributes:
        samples: each has ``value`` in ``unit`` and other numbers by name.
        facts: how it was done: ``ack``, ``publish``, ``versions`` ...
        error: why there are no samples.
    """

    case: str
    broker: str
    contestant: str
    unit: str
    samples: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def median(self, number: str = "value") -> float | None:
        """The median of one of the numbers."""
        found = [sample[number] for sample in self.samples if number in sample]
        return statistics.median(found) if found else None

    def spread(self) -> float | None:
        """The distance between the lowest and the highest value, as a share of the median."""
        values = [sample["value"] for sample in self.samples]
        middle = self.median()
        return (max(values) - min(values)) / middle if middle and len(values) > 1 else None


class Results:
    """The rows of one run, and where it ran."""

    def __init__(self, rows: Iterable[Row] = (), about: Mapping[str, Any] | None = None) -> None:
        self.rows = list(rows)
        self.about: dict[str, Any] = dict(about or {})

    def replace(self, rows: Sequence[Row]) -> None:
        """Add the rows of one case and broker, in the place of those that are there.

        So everybody in a case was measured in the same run.
        """
        measured = {(row.case, row.broker) for row in rows}
        self.rows = [row for row in self.rows if (row.case, row.broker) not in measured]
        self.rows += rows

    def row(self, case: str, broker: str, contestant: str) -> Row | None:
        """One row, if it was measured."""
        for row in self.rows:
            if (row.case, row.broker, row.contestant) == (case, broker, contestant):
                return row
        return None

    def median(
        self, case: str, broker: str, contestant: str, number: str = "value"
    ) -> float | None:
        """A median of one row, or None."""
        row = self.row(case, broker, contestant)
        return row.median(number) if row else None

    def ratio(self, case: str, broker: str, one: str, other: str) -> float | None:
        """The value of one contestant divided by that of another."""
        above, below = self.median(case, broker, one), self.median(case, broker, other)
        return above / below if above is not None and below else None

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {"about": self.about, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Results:
        """The reverse of `as_json`."""
        return cls([Row(**row) for row in found["rows"]], found["about"])
