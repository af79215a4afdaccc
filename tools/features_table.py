"""Write the table of features per transport into README.rst and docs/, from what they declare.

    features_table.py           write it between the markers of each document
    features_table.py --check   change nothing; fail and name what differs

The table comes from `Features`: the rows are its fields with their meaning, a "no" has a footnote
with what `Unsupported` advises. No server is needed: it is what a transport declares before it
connects.
"""

import sys
from pathlib import Path

from queue_core import Features, find_transport

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.rst", ROOT / "docs" / "features.rst")
BEGIN = ".. The table from here on is written by: make docs-table\n"
END = ".. end of the table\n"
# Column -> the scheme whose transport it is about.
COLUMNS = {
    "memory": "memory",
    "SQLite": "sqlite",
    "PostgreSQL": "postgresql",
    "MariaDB": "mysql",
    "Redis": "redis",
    "RabbitMQ": "amqp",
}


def table(columns: dict[str, Features]) -> str:
    """The table and its footnotes as reStructuredText."""
    advice = {name: text for found in columns.values() for name, text in found.lacks().items()}
    footnotes = [name for name in Features.__struct_fields__ if name in advice]
    numbers = {name: number for number, name in enumerate(footnotes, 1)}
    lines = [
        ".. csv-table::",
        f"    :header: Feature, {', '.join(columns)}",
        f"    :widths: {', '.join(['46', *['9'] * len(columns)])}",
        "",
    ]
    for name, (_, meaning) in Features().describe().items():
        cells = [
            "yes" if getattr(found, name) else f"no [{numbers[name]}]_"
            for found in columns.values()
        ]
        lines.append(f'    "``{name}``: {meaning}", {", ".join(cells)}')
    lines.append("")
    lines += [f".. [{number}] ``{name}``: {advice[name]}." for name, number in numbers.items()]
    return "\n".join(lines) + "\n"


def replaced(text: str, new: str) -> str:
    """The document with ``new`` between its markers; ValueError if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there must be the lines {BEGIN.strip()!r} and {END.strip()!r}")
    return f"{before}{begin}\n{new}\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Write or check each document; the exit code is 1 if one differs from what it should be."""
    new = table({name: find_transport(scheme).features for name, scheme in COLUMNS.items()})
    stale = []
    for path in DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        if (wanted := replaced(old, new)) == old:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if "--check" not in arguments:
            path.write_text(wanted, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"the features table differs in {', '.join(stale)}; next: make docs-table")
        return 1
    print(f"features table: {', '.join(stale) + ' written' if stale else 'as it should be'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
