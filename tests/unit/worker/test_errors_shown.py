"""How the command line shows an error: what, because, and one thing to try."""

from __future__ import annotations

import click
import pytest

from queue_core import AccessRefused, ConfigError, ConnectionLost, QueueCoreError
from queue_core.mailbox import SigningKey
from queue_core.worker.cli import cli
from queue_core.worker.cli.errors import report, show


def test_further_lines_of_a_cause_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    show("it failed", "a\nb")
    assert capsys.readouterr().err == "error:   it failed\nbecause: a\n         b\n"


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            AccessRefused("no login as 'u'; check user and password of the URL"),
            77,
            ["error:   no login as 'u'", "try:     check user and password of the URL"],
        ),
        (
            AccessRefused("no login as 'u'"),
            77,
            [
                "error:   no login as 'u'",
                "try:     check the user, the password and the virtual host of the URL",
            ],
        ),
        (
            ConnectionLost("nothing listens there; is the broker running?"),
            69,
            ["error:   nothing listens there", "try:     is the broker running?"],
        ),
        (ConfigError("it is none; say 3"), 78, ["error:   it is none", "try:     say 3"]),
        (ConfigError("it is none"), 78, ["error:   it is none"]),
        (
            ConfigError("it is none; say 3\nnor is that\nno; say 5"),
            78,
            [
                "error:   it is none",
                "try:     say 3",
                "error:   nor is that",
                "error:   no",
                "try:     say 5",
            ],
        ),
    ],
)
def test_what_an_error_advises_itself_is_said_and_nothing_else(
    capsys: pytest.CaptureFixture[str], error: QueueCoreError, code: int, shown: list[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["-A", "shop", "worker"], "options stand behind the command: queue-core worker -A ..."),
        (["inspect", "-A", "shop"], "-b URL, or QUEUE_CORE_URL: no app is needed, only its broker"),
        (["doctor", "--nonsense"], "queue-core doctor --help"),
    ],
)
def test_an_option_where_there_is_none_is_told_what_to_do(
    capsys: pytest.CaptureFixture[str], words: list[str], advice: str
) -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        cli.main(words, "queue-core", standalone_mode=False)
    assert report(caught.value) == 2
    assert f"try:     {advice}" in capsys.readouterr().err


def test_how_to_make_a_secret_is_one_line_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        SigningKey("ops", "short")
    assert report(caught.value) == 78
    assert [line[:24] for line in capsys.readouterr().err.splitlines()] == [
        "error:   the secret of k",
        "try:     make one with: ",
    ]
