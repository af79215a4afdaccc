"""Runs the Python blocks of README.rst and of the documents under docs/, in the order they stand.

The blocks of one document share their names, as a reader would expect who types them in one after
the other. Each document runs in an empty folder. A block that cannot run by itself is a
``code-block`` of another language (``text``, ``shell``) or is marked ``.. skip: next`` there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.rest import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.rst"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.rst"))]


@pytest.fixture
def empty_folder(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def parsed(path: Path) -> Document:
    return Sybil(parsers=[PythonCodeBlockParser(), SkipParser()]).parse(path)


def test_the_readme_has_code_that_runs() -> None:
    assert README.is_file(), "README.rst is missing"
    assert list(parsed(README).examples()), "README.rst has no Python block"


def test_the_readme_names_the_two_commands() -> None:
    assert README.is_file(), "README.rst is missing"
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(p.relative_to(ROOT)) for p in DOCUMENTS])
def test_the_code_of_a_document_runs(path: Path, empty_folder: Path) -> None:
    assert path.is_file(), f"{path.name} is missing"
    for example in parsed(path).examples():
        example.evaluate()
