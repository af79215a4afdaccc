"""TLS to a RabbitMQ with certificates of the tests' own: verified unless the URL says otherwise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from queue_core import Connection
from queue_core.errors import AccessRefused, ConfigError, ConnectionLost, TransportError
from queue_core.topology import Queue
from queue_core.url import parse
from tests.ports import free_port

# The keeper of the own node outlives the handle on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.timeout(180),  # the node takes its time to start
]


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl(
            "req", "-x509", *self._new_key(self._key), "-out", self.certificate,
            "-subj", f"/CN={name}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip

    def issue(self, name: str, *alternatives: str, days: int = 2) -> tuple[Path, Path]:
        """Return certificate and key for ``name``, in files that a server may read."""
        certificate, key, request = (
            self._folder / f"{name}-{self._name}.{kind}" for kind in ("pem", "key", "csr")
        )
        self._openssl("req", *self._new_key(key), "-out", request, "-subj", f"/CN={name}")
        extensions = self._folder / "extensions"
        names = f"subjectAltName={','.join(alternatives)}\n" if alternatives else ""
        extensions.write_text(f"{names}authorityKeyIdentifier=keyid\n")
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-out", certificate, "-days", days, "-extfile", extensions,
        )  # fmt: skip
        for path in (certificate, key):
            path.chmod(0o644)
        return certificate, key

    def _new_key(self, key: Path) -> list[object]:
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        return [*kind, "-keyout", key]

    def _openssl(self, *arguments: object) -> None:
        command = ["openssl", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)


class Secured:
    """The encrypted ports of the node. Its certificate is for ``localhost`` only."""

    def __init__(self, node, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        self.stranger = Authority(folder, "stranger")
        self.client = self.authority.issue("client")
        files = self._files("server", days=2)
        self.port = self._listen(node, f"[{files}{{verify,verify_none}}]")
        strict = f"[{files}{{verify,verify_peer}},{{fail_if_no_peer_cert,true}}]"
        self.strict_port = self._listen(node, strict)
        self.late_port = self._listen(
            node, f"[{self._files('late', days=0)}{{verify,verify_none}}]"
        )

    def _files(self, name: str, *, days: int) -> str:
        """Return a listener's options for a new certificate that is valid for so many days."""
        certificate, key = self.authority.issue(name, "DNS:localhost", days=days)
        files = {"cacertfile": self.authority.certificate, "certfile": certificate, "keyfile": key}
        return "".join(f'{{{what},"{path}"}},' for what, path in files.items())

    def _listen(self, node, options: str) -> int:
        """Have the node listen on one more port; return that."""
        port = free_port()
        node.evaluate(
            f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}, 1)'
        )
        return port

    def url(self, host: str = "localhost", port: int = 0, **options: object) -> str:
        said = "&".join(f"{name}={value}" for name, value in options.items())
        return f"amqps://guest:guest@{host}:{port or self.port}/?{said}"


@pytest.fixture(scope="module")
def secured(own_node):
    folder = own_node.folder / "certificates"  # where the server, another user, can read them
    folder.mkdir()
    return Secured(own_node, folder)


def refused(url: str, *kinds: type[TransportError]) -> str:
    """Connect, which must fail with one line; return that."""
    with Connection(url, connect_timeout=20.0) as connection:
        with pytest.raises(kinds) as caught:
            connection.connect()
    assert type(caught.value) in kinds
    text = str(caught.value)
    assert "\n" not in text
    assert "guest:guest" not in text
    return text


def test_everything_works_over_a_verified_connection(own_bench, secured):
    session = own_bench.open_url(secured.url(cafile=secured.authority.certificate))
    queue = own_bench.queue()
    bodies = [bytes([n % 256]) * (n * 997 % 200_000) for n in range(60)]
    messages = [own_bench.message(queue, body) for body in bodies]
    assert set(own_bench.publish(session, *messages)) == {"confirmed"}
    session.subscribe("c", queue, prefetch=100)
    found = own_bench.take(session, "c", len(bodies))
    assert [delivery.body for delivery in found] == bodies
    own_bench.ack(session, *found)
    session.flush("c")
    session.cancel("c")
    assert own_bench.rest(queue) == []


def test_an_unknown_authority_is_refused_by_default(secured):
    for url in (secured.url(), secured.url(cafile=secured.stranger.certificate)):
        text = refused(url, AccessRefused)
        assert f"localhost:{secured.port}" in text
        assert "certificate" in text
        assert "cafile" in text


def test_a_certificate_for_another_host_is_refused(secured):
    text = refused(secured.url("127.0.0.1", cafile=secured.authority.certificate), AccessRefused)
    assert f"127.0.0.1:{secured.port}" in text
    assert "IP address mismatch" in text
    assert "cafile" not in text


def test_a_certificate_whose_time_is_over_is_refused(secured):
    url = secured.url(port=secured.late_port, cafile=secured.authority.certificate)
    text = refused(url, AccessRefused)
    assert "expired" in text
    assert "the server needs another one" in text
    assert "cafile" not in text


def test_verify_false_accepts_any_certificate(secured):
    for host in ("localhost", "127.0.0.1"):
        with Connection(secured.url(host, verify="false")) as connection:
            name = connection.declare(Queue(exclusive=True, durable=False)).name
            connection.producer().publish({"a": 1}, name)
            assert connection.consumer(name).receive(timeout=20.0).payload == {"a": 1}


def test_a_client_certificate_is_shown_to_a_server_that_wants_one(secured):
    certificate, key = secured.client
    url = secured.url(
        port=secured.strict_port,
        cafile=secured.authority.certificate,
        certfile=certificate,
        keyfile=key,
    )
    with Connection(url) as connection:
        connection.declare(Queue(exclusive=True, durable=False))


def test_a_server_that_wants_a_client_certificate_says_so(secured):
    # Its reason comes after the handshake, and is lost if it ends the connection first.
    options = {"port": secured.strict_port, "cafile": secured.authority.certificate}
    text = refused(secured.url(**options), AccessRefused, ConnectionLost)
    assert "certfile" in text
    certificate, key = secured.stranger.issue("stranger")
    url = secured.url(**options, certfile=certificate, keyfile=key)
    assert "certfile" in refused(url, AccessRefused, ConnectionLost)


def test_a_plain_connection_to_an_encrypted_port_is_explained(secured):
    url = secured.url().replace("amqps://", "amqp://").partition("?")[0]
    assert "amqps://" in refused(url, ConnectionLost)


def test_certificate_files_that_cannot_be_read_are_named(secured, tmp_path):
    certificate, _ = secured.client
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for options, name in (
        ({"cafile": tmp_path / "missing.pem"}, "missing.pem"),
        ({"cafile": broken}, "broken.pem"),
        ({"certfile": tmp_path / "missing.pem"}, "missing.pem"),
        ({"certfile": certificate, "keyfile": broken}, "broken.pem"),
        ({"certfile": certificate, "keyfile": secured.stranger._key}, "stranger.key"),
    ):
        with Connection(secured.url(**options)) as connection:
            with pytest.raises(ConfigError, match=name):
                connection.connect()


def test_options_of_tls_are_for_tls_only():
    with pytest.raises(ConfigError, match="amqps://"):
        Connection("amqp://localhost/?cafile=ca.pem")
    assert parse("amqps://localhost/").transport == "amqps"
