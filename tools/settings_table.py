"""Write the tables of settings into docs/settings.rst, from `Settings` and celery's names.

settings_table.py           write them between the markers
settings_table.py --check   change nothing; fail if they differ
"""

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from queue_core.worker.celery_settings import FAMILIES, IRREGULAR, NEEDLESS, REFUSED
from queue_core.worker.settings import DEFAULTS, FIELDS, Settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "settings.rst"
BEGIN = ".. The tables from here on are written by: make docs-table\n"
END = ".. end of the tables\n"


def words() -> dict[str, str]:
    """What the docstring says of each setting."""
    text = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", "\n" + text):
        names, _, said = entry.strip().partition(":")
        for name in names.split(","):
            if name.strip():
                found[name.strip()] = " ".join(said.split())
    return found


def old_names() -> dict[str, str]:
    """Setting -> how celery called it in upper case, where that follows no rule."""
    return {new: old.upper() for old, new in IRREGULAR.items()}


def tables() -> str:
    """All tables as reStructuredText."""
    said, old = words(), old_names()
    rows = [
        (f"``{name}``", f"``{getattr(DEFAULTS, name)!r}``", said[name] + _formerly(old.get(name)))
        for name in FIELDS
    ]
    needless = [(f"``{name}``", why) for name, why in NEEDLESS.items()]
    refused = [(f"``{name}``", why) for name, (_, why) in REFUSED.items()]
    refused += [(f"``{prefix}...``", why) for prefix, why in FAMILIES.items()]
    return "\n".join(
        [
            *_table("Setting, Default, Meaning", "28, 17, 55", rows),
            "Not needed here, and accepted:\n",
            *_table("Setting, Why", "40, 60", needless),
            "Refused, unless the value is what happens anyway:\n",
            *_table("Setting, Instead", "40, 60", refused),
        ]
    )


def _formerly(name: str | None) -> str:
    return f" (``{name}``)" if name else ""


def _table(header: str, widths: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [".. csv-table::", f"    :header: {header}", f"    :widths: {widths}", ""]
    for row in rows:
        cells = (cell.replace('"', '""') for cell in row)
        lines.append("    " + ", ".join(f'"{cell}"' for cell in cells))
    return [*lines, ""]


def main(arguments: list[str]) -> int:
    """Write or check; the exit code is 1 if it differs from what it should be."""
    old = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there must be the lines {BEGIN.strip()!r} and {END.strip()!r}")
    new = f"{before}{begin}\n{tables()}\n{end}{after}"
    if new == old:
        print("settings tables: as they should be")
        return 0
    if "--check" in arguments:
        print("the settings tables differ in docs/settings.rst; next: make docs-table")
        return 1
    DOCUMENT.write_text(new, encoding="utf-8")
    print("settings tables: docs/settings.rst written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
