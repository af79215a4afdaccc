"""The fault proxy does to a connection what it says, and nothing else."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from queue_core.testing import eventually
from queue_core.testing.faults import FaultProxy


class Echo:
    """A TCP server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, run, *args) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            self._ends.append(end)
            self._begin(self._echo, end)

    def _echo(self, end: socket.socket) -> None:
        try:
            while data := end.recv(65536):
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            end.close()
        for thread in self._threads:
            thread.join(20.0)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", echo.port, seed=7) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with connect(proxy) as end:
        yield end


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20.0)


def read(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := end.recv(count - len(data))):
        data += more
    return data


def read_until_reset(end: socket.socket) -> bytes:
    data = b""
    with pytest.raises(ConnectionResetError):
        while more := end.recv(65536):
            data += more
    return data


def test_everything_passes_unchanged_in_both_directions(client):
    data = random.Random(1).randbytes(3_000_000)
    threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
    assert hashlib.sha256(read(client, len(data))).digest() == hashlib.sha256(data).digest()


def test_the_end_of_one_direction_passes_too(client, proxy):
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert read(client, 100) == b"last words"
    client.close()
    eventually(lambda: proxy.connections == 0)
    assert proxy.accepted == 1


def test_a_delay_holds_data_back_in_each_direction_and_keeps_order(client, proxy):
    proxy.delay(0.1, jitter=0.05)
    begun = time.monotonic()
    for number in range(10):
        client.sendall(b"%d" % number)
    assert read(client, 10) == b"0123456789"
    assert 0.2 <= time.monotonic() - begun < 10.0


def test_a_stall_moves_nothing_and_healing_loses_nothing(client, proxy):
    proxy.stall()
    client.sendall(b"held")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(10)
    with connect(proxy) as late:
        late.sendall(b"too")
        proxy.heal()
        client.settimeout(5.0)
        assert read(client, 4) == b"held"
        assert read(late, 3) == b"too"


def test_a_reset_ends_what_is_open_and_lets_new_ones_through(client, proxy):
    client.sendall(b"x")
    assert read(client, 1) == b"x"
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with connect(proxy) as other:
        other.sendall(b"y")
        assert read(other, 1) == b"y"


@pytest.mark.parametrize("count", [0, 1, 7, 64 * 1024 + 1])
def test_a_cut_comes_after_exactly_that_many_bytes_down(client, proxy, count):
    proxy.cut_after(count, direction="down")
    threading.Thread(target=send_all, args=(client, bytes(300_000)), daemon=True).start()
    assert len(read_until_reset(client)) == count


def send_all(end: socket.socket, data: bytes) -> None:
    try:
        end.sendall(data)
    except OSError:
        pass


def test_a_cut_counts_both_directions_together(client, proxy):
    proxy.cut_after(15)
    client.sendall(b"0123456789")
    assert read_until_reset(client) == b"01234"


def test_after_so_many_cuts_everything_passes(client, proxy):
    proxy.cut_after(3, direction="down", times=1)
    client.sendall(b"0123456789")
    assert read_until_reset(client) == b"012"
    with connect(proxy) as other:
        other.sendall(b"0123456789")
        assert read(other, 10) == b"0123456789"


def test_random_cuts_repeat_with_the_seed(echo):
    def lengths() -> list[int]:
        with FaultProxy("127.0.0.1", echo.port, seed=42) as proxy:
            proxy.cut_after(1, up_to=1000, direction="down")
            found = []
            for _ in range(4):
                with connect(proxy) as end:
                    end.sendall(bytes(1000))
                    found.append(len(read_until_reset(end)))
            return found

    first = lengths()
    assert first == lengths()
    assert len(set(first)) > 1


def test_refusing_refuses_new_ones_only_and_keeps_the_port(client, proxy):
    client.sendall(b"a")
    assert read(client, 1) == b"a"
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    client.sendall(b"b")
    assert read(client, 1) == b"b"
    proxy.heal()
    assert proxy.port == port
    with connect(proxy) as other:
        other.sendall(b"c")
        assert read(other, 1) == b"c"


def test_refusing_can_end_the_open_ones_too_like_a_broker_that_was_killed(client, proxy):
    client.sendall(b"a")
    assert read(client, 1) == b"a"
    proxy.refuse(reset=True)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_a_broker_that_is_not_there_resets_the_client():
    with socket.socket() as gone:  # bound, so that nobody else gets the port, and not listening
        gone.bind(("127.0.0.1", 0))
        with FaultProxy("127.0.0.1", gone.getsockname()[1]) as proxy:
            with pytest.raises(ConnectionResetError), connect(proxy) as end:
                end.recv(1)


def test_stopping_closes_everything_and_may_be_repeated(echo):
    proxy = FaultProxy("127.0.0.1", echo.port).start()
    end = connect(proxy)
    end.sendall(b"x")
    assert read(end, 1) == b"x"
    proxy.stop()
    proxy.stop()
    with pytest.raises(ConnectionResetError):
        end.recv(1)
    end.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "fault-proxy"]
    with pytest.raises(RuntimeError):
        proxy.heal()


def test_a_proxy_that_never_started_can_be_stopped():
    FaultProxy("127.0.0.1", 1).stop()
