"""Signed commands: what may be changed about them, kept, or sent again - nothing."""

import logging

import msgspec
import pytest

from queue_core import ConfigError
from queue_core.mailbox import SigningKey
from queue_core.mailbox.signing import ETERNITY, SKEW, Guard
from queue_core.mailbox.wire import Address, Command, ReplyAddress, parse_command
from queue_core.testing.clocks import FakeClock

OPS = SigningKey("ops", "the secret of the operators")
OTHER = SigningKey("ops", "another secret altogether")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def command():
    return Command("shutdown", {"drain": 5}, "ticket-1", Address(("web-1",)), ttl=10.0)


@pytest.fixture
def guard(clock):
    return Guard({"ops": OPS}, clock)


def test_a_signed_command_is_accepted_once(guard, clock, command):
    signed = OPS.sign(command, clock)
    assert guard.objection(signed) is None
    assert "sent it again" in guard.objection(signed)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "pause"},
        {"arguments": {"drain": 0}},
        {"ticket": "ticket-2"},
        {"address": Address(("web-2",))},
        {"address": Address()},
        {"address": Address(("web-1",), labels={"a": "b"})},
        {"ttl": 1000.0},
        {"ttl": None},
        {"signed_at": 1e12},
        {"clock": 99},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_that_matters_can_be_changed(guard, clock, command, change):
    changed = msgspec.structs.replace(OPS.sign(command, clock), **change)
    assert "was not made by the key" in guard.objection(changed)


def test_where_the_answer_goes_is_not_signed(guard, clock, command):
    signed = OPS.sign(command, clock)
    moved = msgspec.structs.replace(signed, reply_to=ReplyAddress("x", "y"))
    assert guard.objection(moved) is None


def test_tickets_are_forgotten_when_they_are_no_good_and_not_looked_through_each_time(
    guard, clock, command
):
    class Counting(dict):
        looks = 0

        def items(self):
            Counting.looks += 1
            return super().items()

    guard._accepted = Counting()
    for number in range(500):
        fresh = msgspec.structs.replace(command, ticket=f"t-{number}")
        assert guard.objection(OPS.sign(fresh, clock)) is None
        clock.advance(0.1)
    assert Counting.looks <= 50
    clock.advance(300)
    fresh = msgspec.structs.replace(command, ticket="later")
    assert guard.objection(OPS.sign(fresh, clock)) is None
    assert list(guard._accepted) == ["later"]


def test_who_has_no_key_or_another_one_is_refused(guard, clock, command):
    assert guard.objection(command) == "it is not signed"
    assert "was not made by" in guard.objection(OTHER.sign(command, clock))
    stranger = SigningKey("eve", "sixteen bytes or more")
    assert "does not know the key 'eve'" in guard.objection(stranger.sign(command, clock))


def test_a_captured_command_is_no_good_later(guard, clock, command):
    signed = OPS.sign(command, clock)
    clock.advance(10 + SKEW + 1)
    assert "signed 41 s ago" in guard.objection(signed)
    forever = OPS.sign(msgspec.structs.replace(command, ttl=None), clock)
    clock.advance(ETERNITY + SKEW + 1)
    assert "ago" in guard.objection(forever)


def test_a_command_from_before_the_start_of_the_node_is_refused(clock, command):
    guard = Guard({"ops": OPS}, clock)
    signed = OPS.sign(command, clock)
    clock.advance(0.1)
    guard.begin()
    assert "before this node was started" in guard.objection(signed)
    assert guard.objection(OPS.sign(command, clock)) is None


def test_a_clock_far_ahead_is_told(guard, clock, command):
    ahead = FakeClock()
    ahead.advance(clock.time() - ahead.time() + 100)
    assert "set the clocks" in guard.objection(OPS.sign(command, ahead))


def test_tickets_are_forgotten_when_their_signatures_are_no_good_any_more(guard, clock, command):
    for number in range(50):
        renamed = msgspec.structs.replace(command, ticket=str(number))
        assert guard.objection(OPS.sign(renamed, clock)) is None
        clock.advance(10)
    assert len(guard._accepted) < 10


def test_a_command_of_the_journal_may_be_old_but_not_forged(clock, command):
    signed = OPS.sign(command, clock)
    clock.advance(1000)
    guard = Guard({"ops": OPS}, clock)
    assert guard.doubt(signed, 3600) is None
    assert guard.doubt(signed, 500) == "it was signed too long ago"
    assert "not signed" in guard.doubt(command, 3600)
    assert "not signed" in guard.doubt(msgspec.structs.replace(signed, method="x"), 3600)


def test_without_keys_everybody_may_do_everything(clock, command):
    guard = Guard({}, clock)
    assert guard.open
    assert guard.objection(command) is None
    assert guard.doubt(command, 1) is None


def test_a_key_never_shows_its_secret():
    assert "secret" not in repr(OPS)
    assert "secret" not in str(OPS)


@pytest.mark.parametrize(("name", "secret"), [("", "x" * 32), ("a", "short")])
def test_a_key_needs_a_name_and_a_long_secret(name, secret, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError) as error:
        SigningKey(name, secret)
    assert secret not in str(error.value)


def test_a_key_in_a_file_may_end_with_a_line_break(guard, clock, command, tmp_path):
    file = tmp_path / "ops.key"
    file.write_text("the secret of the operators\n")
    assert guard.objection(SigningKey.from_file("ops", file).sign(command, clock)) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"\xff\xfe" * 10, "is no text"), (b"short", "5 bytes")],
)
def test_a_file_without_a_good_key_is_refused_with_the_reason(content, why, tmp_path):
    file = tmp_path / "ops.key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        SigningKey.from_file("ops", file)


@pytest.mark.parametrize("ttl", [10, 10.0, 0.1, None])
def test_a_signature_is_good_on_the_other_side_of_the_wire(guard, clock, command, ttl):
    signed = OPS.sign(msgspec.structs.replace(command, ttl=ttl), clock)
    assert guard.objection(parse_command(signed.body(), signed.headers())) is None
