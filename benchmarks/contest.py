"""The process of a contestant: jobs come in as JSON lines, answers go out the same way.

    python -m benchmarks.contest CONTESTANT

A job names a question and a broker and carries the numbers. Each job opens its own adapter, so that
no contestant has anything open while others are measured. What a library prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from benchmarks.adapter import NotOffered


def answer(contestant: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Do one job."""
    question = importlib.import_module(f"benchmarks.questions.{job['question']}")
    try:
        adapter = contestant.open_adapter(job["broker"], job["url"])
    except NotOffered as error:
        return {"absent": str(error)}
    try:
        return {**question.measure(adapter, job), "facts": adapter.facts}
    except NotOffered as error:
        return {"absent": str(error)}
    finally:
        adapter.close()


def main(name: str) -> None:
    """Serve jobs until the end of the input."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = importlib.import_module(f"benchmarks.contestants.{name}")
    print(json.dumps({"ready": name}), file=out, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(contestant, json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
