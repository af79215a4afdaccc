"""Runs the Python blocks of README.rst and of the documents under docs/, in the order they stand.

Each document runs in an empty folder. Its blocks share their names, as a reader would expect who
types them in one after the other. A block with ``:name: file.py`` becomes that file and is
imported, so that later blocks can import it too. What cannot run by itself is a ``code-block`` of
another language (``text``, ``shell``) or has ``.. skip: next`` before it.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.rest import CodeBlockParser, SkipParser

from queue_core.worker.control import registry

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.rst"
DOCUMENTS = [README, *sorted((ROOT / "docs").rglob("*.rst"))]

run_here = PythonEvaluator()


def run_block(example: Example) -> None:
    """Run a block where it stands, or write it to the file that it names and import that."""
    name = example.region.lexemes["options"].get("name")
    if name is None:
        run_here(example)
        return
    Path(name).write_text(example.parsed, encoding="utf-8")
    importlib.invalidate_caches()
    importlib.import_module(Path(name).stem)


def parsed(path: Path) -> Document:
    blocks = CodeBlockParser(language="python", evaluator=run_block)
    return Sybil(parsers=[blocks, SkipParser()]).parse(path)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(registry, "_commands", list(registry._commands))  # some documents add some
    modules = set(sys.modules)
    before = Path.cwd()
    os.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    os.chdir(before)
    for name in set(sys.modules) - modules:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


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
