"""Broker URLs: the grammar, the typed options, and that no password is ever shown."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queue_core.errors import ConfigError
from queue_core.registry import find_transport
from queue_core.url import BrokerURL, parse, parse_alternates, redact

SECRET = "Zx9Kq"


def refusal(url: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(url)
    return str(caught.value)


def test_all_parts_are_read_and_decoded() -> None:
    url = parse(" PostgreSQL+psycopg://us%40er:p%3Aw%2F%25@DB.example:5433/my%20db?a=1+2&b=%2Fx ")
    assert (url.scheme, url.transport, url.driver) == (
        "postgresql+psycopg",
        "postgresql",
        "psycopg",
    )
    assert (url.user, url.password) == ("us@er", "p:w/%")
    assert (url.host, url.port, url.path, url.database) == (
        "db.example",
        5433,
        "/my%20db",
        "my db",
    )
    assert url.options == {"a": "1 2", "b": "/x"}


@pytest.mark.parametrize(
    "scheme", ["amqp", "amqps", "redis", "rediss", "mysql", "mariadb", "postgresql", "foo+bar"]
)
def test_every_scheme_is_read_since_the_registry_knows_them(scheme: str) -> None:
    url = parse(f"{scheme}://h:1/x")
    assert (url.scheme, url.host, url.port, url.path) == (scheme, "h", 1, "/x")
    assert (url.user, url.password) == (None, None)


@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("redis://:pw@h", None, "pw"),
        ("redis://u@h", "u", None),
        ("redis://u:@h", "u", ""),
        ("redis://u:p@s@h", "u", "p@s"),
        ("redis://u:a:b@h", "u", "a:b"),
        ("redis://u:p%40%3A%2F%25@h", "u", "p@:/%"),
        ("redis://u:a#b@h", "u", "a#b"),
        ("redis://@h", "", None),
    ],
)
def test_credentials_are_split_at_the_first_colon_and_the_last_at(
    url: str, user: str | None, password: str | None
) -> None:
    parsed = parse(url)
    assert (parsed.user, parsed.password, parsed.host) == (user, password, "h")
    assert parse(parsed.secret()) == parsed


@pytest.mark.parametrize(
    "url", ["amqp://h", "amqp://h/", "amqp://h/?a=1", "amqp://h//", "amqp://h/%2F"]
)
def test_five_spellings_name_the_default_virtual_host(url: str) -> None:
    assert parse(url).vhost == "/"


def test_named_virtual_hosts_are_decoded_once() -> None:
    assert parse("amqp://h/shop").vhost == "shop"
    assert parse("amqp://h/a%2Fb").vhost == "a/b"
    assert parse("amqp://h/a%252Fb").vhost == "a%2Fb"


def test_sqlite_takes_a_relative_or_an_absolute_file() -> None:
    assert parse("sqlite:///rel.db").database == "rel.db"
    assert parse("sqlite:////tmp/abs.db").database == "/tmp/abs.db"
    assert parse("sqlite:///my%20queue@home.db").database == "my queue@home.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://?a=1"])
def test_sqlite_without_a_file_points_to_memory(url: str) -> None:
    assert "memory://" in refusal(url)


def test_sqlite_with_a_host_points_to_three_slashes() -> None:
    assert "sqlite:///relative.db" in refusal("sqlite://queue.db")


def test_a_memory_broker_has_a_name_in_its_own_case_and_nothing_else() -> None:
    assert parse("memory://").host == ""
    assert parse("memory://Shop_1%20x").host == "Shop_1 x"
    assert str(parse("memory://Shop_1%20x")) == "memory://Shop_1%20x"
    for wrong in ("memory://a/b", "memory://a:1", "memory://u@a"):
        assert "memory://name" in refusal(wrong)


def test_ipv6_hosts_stand_in_brackets() -> None:
    url = parse("amqp://u:p@[fe80::1]:5672//")
    assert (url.host, url.port) == ("fe80::1", 5672)
    assert url.secret() == "amqp://u:p@[fe80::1]:5672//"
    assert parse("amqp://[::1]").port is None
    assert "[::1]:5672" in refusal("amqp://::1//")
    assert "[::1]:5672" in refusal("amqp://[::1//")
    assert "IPv6" in refusal("amqp://[nonsense]//")
    assert "IPv6" in refusal("amqp://[::1]x//")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        (None, "NoneType"),
        (5672, "int"),
        ("localhost", "no '://'"),
        ("localhost:5672", "no '://'"),
        ("amqp:/host", "write amqp://"),
        ("amqp//host", "no '://'"),
        ("am qp://host", "no scheme"),
        ("://host", "no scheme"),
        ("amqp://host:99999//", "1 to 65535"),
        ("amqp://host:0//", "1 to 65535"),
        ("amqp://host:56x2//", "1 to 65535"),
        ("amqp://ho st//", "host"),
        ("amqp://h1:1,h2:2//", "':'"),
        ("amqp://h1,h2//", "';'"),
        ("amqp://host/%zz", "%25"),
        ("amqp://host/%ff", "UTF-8"),
        ("amqp://host/%00", "control character"),
        ("amqp://host//\nx", "control character"),
        ("amqp://host//?a=1&a=2", "twice"),
        ("amqp://host//?=2", "no proper name"),
        ("amqp://host//?a://b", "no proper name"),
        ("amqp://u:p@h/a@b", "%40"),
        ("amqp://a//;amqp://b//", "second '://'"),
    ],
)
def test_what_is_no_url_is_refused_with_what_to_write(url: object, hint: str) -> None:
    assert hint in refusal(url)


def test_several_urls_are_alternates_in_order() -> None:
    first, second = parse_alternates("amqp://a// ; amqp://b//;")
    assert (first.host, second.host) == ("a", "b")
    assert len(parse_alternates("memory://")) == 1
    with pytest.raises(ConfigError, match="URL 2 of 2.*no '://'"):
        parse_alternates("amqp://a//;b")
    for nothing in ("", " ; "):
        with pytest.raises(ConfigError, match="is empty"):
            parse_alternates(nothing)
    with pytest.raises(ConfigError, match="NoneType"):
        parse_alternates(None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("2h", 7200),
        ("1d", 86400),
        ("10", 10),
        ("-1", -1),
    ],
)
def test_a_float_option_may_be_a_duration(text: str, seconds: float) -> None:
    assert parse(f"memory://?wait={text}").option("wait", float, 1.0) == pytest.approx(seconds)


def test_options_have_types_and_defaults() -> None:
    url = parse("redis://h?n=12&on=Yes&off=0&name=x")
    assert url.option("n", int, 5) == 12
    assert url.option("on", bool, False) is True
    assert url.option("off", bool, True) is False
    assert url.option("name", str) == "x"
    assert url.option("absent", int, 5) == 5
    assert url.option("absent", str) is None


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("x", int, "a whole number"),
        ("1.5", int, "a whole number"),
        ("9" * 5000, int, "a whole number"),
        ("maybe", bool, "true or false"),
        ("", bool, "true or false"),
        ("nan", float, "duration"),
        ("inf", float, "duration"),
        ("9" * 400 + "s", float, "duration"),
        ("3 weeks", float, "duration"),
    ],
)
def test_an_option_of_the_wrong_type_says_what_it_must_be(
    text: str, kind: type[int | float | bool], expected: str
) -> None:
    with pytest.raises(ConfigError, match=f"'limit'.* must be .*{expected}"):
        parse(f"redis://h?limit={text}").option("limit", kind)


def test_seconds_are_within_their_bounds_and_a_default_is_the_programs_own() -> None:
    url = parse("amqp://host?short=5ms&fine=2m")
    assert url.seconds("fine", 1.0, low=1.0, high=600.0) == 120.0
    assert url.seconds("absent", 0.0, low=1.0, high=600.0) == 0.0
    with pytest.raises(ConfigError, match="option 'short'.* seconds from 1 to 600"):
        url.seconds("short", 1.0, low=1.0, high=600.0)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("amqp://host?cafile=ca.pem", "'cafile'.* is for TLS: begin the URL with amqps://"),
        ("amqp://host?verify=false", "'verify'.* is for TLS"),
        ("amqps://host?verify=perhaps", "'verify'.* must be"),
        ("amqps://host?keyfile=key.pem", "'keyfile'.* needs 'certfile' too"),
    ],
)
def test_what_does_not_go_together_for_tls_is_refused(url: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse(url).check_tls("amqps")
    parse("amqps://host?certfile=c.pem&keyfile=k.pem&verify=no").check_tls("amqps")


def test_an_unknown_option_names_the_nearest_and_all_known_ones() -> None:
    url = parse("redis://h?heartbeet=3")
    with pytest.raises(ConfigError, match="'heartbeet'.*did you mean 'heartbeat'.*lease"):
        url.check_options({"lease", "heartbeat"})
    with pytest.raises(ConfigError, match="has no options"):
        url.check_options(())
    url.check_options(["heartbeet"])


def test_the_text_form_hides_the_password_and_secret_gives_it() -> None:
    url = parse("amqp://user:pw@host:5672/vhost?sslpassword=x&lease=3s&Auth_Token=t")
    shown = "amqp://user:***@host:5672/vhost?sslpassword=***&lease=3s&Auth_Token=***"
    assert str(url) == f"{url}" == shown
    assert repr(url) == f"BrokerURL({shown!r})"
    assert url.secret() == "amqp://user:pw@host:5672/vhost?sslpassword=x&lease=3s&Auth_Token=t"


def test_a_url_inside_an_option_is_redacted_too() -> None:
    url = parse(f"redis://h?backend=redis%3A%2F%2F%3A{SECRET}%40other%2F0")
    assert str(url) == "redis://h?backend=redis://:***@other/0"
    assert url.option("backend", str) == f"redis://:{SECRET}@other/0"


def test_urls_are_values() -> None:
    assert parse("redis://h?a=1") == parse("redis://h?a=1")
    assert len({parse("redis://h?a=1"), parse("redis://h?a=1")}) == 1
    assert BrokerURL("memory") == parse("memory://")


passwords = st.text(st.characters(exclude_categories=["C"]), max_size=8).map(
    lambda text: SECRET + text + SECRET
)
wrappers = st.sampled_from(
    [
        "amqp://user:{}@host:5672/vhost",
        "redis://:{}@host",
        "amqp://user:{}@host/",
        "amqp:/user:{}@host",
        "amqp//user:{}@host",
        "amqp:user:{}@host",
        "user:{}@host:5672",
        ":{}@host",
        "amqp://user:{}@host:port/",
        "amqp://user:{}",
        "amqp://user:{}/vhost",
        "amqp://user:{}@[::1/",
        "amqp://user:{}@ho st/%zz",
        "am qp://user:{}@host/v",
        "redis://host?password={}",
        "redis://host?sslp%61ssword={}",
        "redis://host:x?my_token={}&a=1&a=2",
        "redis://host?a=%ff&secret={}",
        "sqlite://user:{}@x",
        "memory://user:{}@x",
        "redis://host?backend=redis://:{}@x/0",
        "amqp://a//;amqp://user:{}@host/",
    ]
)


@pytest.mark.slow
@settings(max_examples=1000)
@given(password=passwords, wrapper=wrappers)
@example(password=SECRET + "@/?#;%" + SECRET, wrapper="amqp://user:{}@host:5672/vhost")
@example(password=SECRET + ";" + SECRET, wrapper="amqp://user:{}@host/v")
@example(password="1234;" + SECRET, wrapper="amqp://user:{}@host/v")
@example(password="12/" + SECRET, wrapper="amqp://user:{}@host/v")
@example(password="12?" + SECRET, wrapper="amqp://user:{}@host/v")
@example(password=SECRET + ":" + SECRET, wrapper="redis://host?password={}")
@example(password=SECRET + "%ff", wrapper="amqp://user:{}@host/v")
def test_a_raw_password_is_never_shown_however_broken_the_url_is(
    password: str, wrapper: str
) -> None:
    if wrapper.endswith(("{}", "{}/vhost")) or "={}" in wrapper:
        # nothing marks the end of the password here: these three then mean something else
        password = re.sub("[@&;]", "", password)
    text = wrapper.format(password)
    assert SECRET not in redact(text)
    for read in (parse, parse_alternates):
        try:
            result = read(text)
        except ConfigError as error:
            assert SECRET not in "".join(traceback.format_exception(error))
            while error is not None:
                assert SECRET not in repr(error) + repr(getattr(error, "object", ""))
                error = error.__context__  # type: ignore[assignment]
        else:
            assert SECRET not in str(result) + repr(result)


@given(
    user=st.none() | st.text(st.characters(exclude_categories=["C"]), min_size=1),
    password=st.none() | st.text(st.characters(exclude_categories=["C"])),
    port=st.none() | st.integers(1, 65535),
    options=st.dictionaries(
        st.from_regex(r"\A[\w.-]+\Z"),
        st.text(st.characters(exclude_categories=["C"])),
        max_size=4,
    ),
)
def test_the_full_text_reads_back_to_the_same_url(
    user: str | None, password: str | None, port: int | None, options: dict[str, str]
) -> None:
    url = BrokerURL("redis", user, password, "host", port, "/0", options)
    assert parse(url.secret()) == url


@given(text=st.text() | st.text(alphabet="amqp:/@?&=;[]%.1 "))
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    for read in (parse, parse_alternates):
        try:
            read(text)
        except ConfigError:
            continue


@pytest.mark.parametrize("url", ["redis+sentinel://h", "amqp+ssl://h", "memory+x://name"])
def test_a_driver_that_a_transport_does_not_have_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"driver .* does not have"):
        find_transport(url.partition(":")[0]).check(parse(url))
