"""Running a function in another process, for tests of what processes see of one another.

The other process is a fresh interpreter with nothing in common with this one but the modules on the
disk. So function and arguments must be picklable: functions of importable modules,
`functools.partial` of such, plain values.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT = 30.0


def run_elsewhere(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a new process, and return what it returned once that process has ended.

    Blocks for the start of an interpreter, and at most 30 s.

    Raises:
        AssertionError: it raised; the message is the other process's traceback.
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    request = pickle.dumps((function, args, kwargs))
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import _serve; _serve()"],
        input=request,
        capture_output=True,
        timeout=_TIMEOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])},
    )
    if done.returncode != 0:
        raise AssertionError(f"the other process failed:\n{done.stderr.decode(errors='replace')}")
    result: T = pickle.loads(done.stdout)
    return result


def _serve() -> None:
    """Be the other process: read the call from standard input, write its result."""
    out = os.dup(1)
    os.dup2(2, 1)
    function: Callable[..., Any]
    function, args, kwargs = pickle.loads(sys.stdin.buffer.read())
    result = pickle.dumps(function(*args, **kwargs))
    with os.fdopen(out, "wb") as stream:
        stream.write(result)
