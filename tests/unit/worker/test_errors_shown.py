"""How the command line shows an error: what, because, and one thing to try."""

from __future__ import annotations

import click
import pytest

from queue_core import AccessRefused, ConfigError, ConnectionLost, QueueCoreError
from queue_core.worker.cli import cli
from queue_core.worker.cli.errors import report


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
    ],
)
def test_what_an_error_advises_itself_is_said_and_nothing_else(
    capsys: pytest.CaptureFixture[str], error: QueueCoreError, code: int, shown: list[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr().err.splitlines() == shown


def test_an_option_before_the_command_is_told_where_it_belongs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        cli.main(["-A", "shop", "worker"], "queue-core", standalone_mode=False)
    assert report(caught.value) == 2
    assert "try:     options stand behind the command: queue-core worker -A ..." in (
        capsys.readouterr().err
    )
