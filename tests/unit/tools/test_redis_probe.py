"""The probe for Redis tells what answers from what does not."""

import importlib.util
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("redis_probe", TOOLS / "redis_probe.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


def served(*answers: bytes) -> str:
    """The url of a server that gives these answers, one per command, and then closes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                for answer in answers:
                    connection.recv(4096)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"redis://127.0.0.1:{server.getsockname()[1]}"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


GOOD = bulk("# Memory\r\nmaxmemory_policy:noeviction\r\n")


def test_a_redis_that_runs_scripts_is_taken(tool: ModuleType) -> None:
    tool.probe(served(b"+OK\r\n", GOOD, bulk("1")) + "/3")


@pytest.mark.parametrize(
    ("answers", "cause"),
    [
        ([b"-NOAUTH Authentication required.\r\n"], "NOAUTH"),
        ([bulk("maxmemory_policy:allkeys-lru")], "evicts"),
        ([GOOD, b"-NOPERM no eval for you\r\n"], "NOPERM"),
        ([b"HTTP/1.1 400 Bad Request\r\n"], "does not speak"),
        ([b""], "does not speak"),
    ],
)
def test_others_are_not_and_the_cause_is_said(
    tool: ModuleType, answers: list[bytes], cause: str
) -> None:
    with pytest.raises(tool.NoAnswer, match=cause):
        tool.probe(served(*answers))


def test_a_port_where_nobody_listens_is_no_server(tool: ModuleType) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(tool.NoAnswer, match="refused"):
            tool.probe(f"redis://127.0.0.1:{bound.getsockname()[1]}")
