#!/bin/sh
# Makes .venv-peers: an environment of its own for the libraries that `make bench-peers` compares
# with, and in which `make test` runs celery and kombu beside us. Versions are not pinned: the newest
# ones are the ones to be compared with, and each result says which they were. A stamp tells a
# finished installation from one that broke off.
set -u

cd "$(dirname "$0")/.." || exit 1
VENV=.venv-peers
STAMP=$VENV/.queue-core-stamp
LOG=$VENV/install.log
PEERS="kombu celery dramatiq taskiq taskiq-aio-pika taskiq-redis huey procrastinate sqlalchemy
    redis hiredis pika amqp psycopg[binary] PyMySQL"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

wanted() { { echo "$PEERS"; .venv/bin/python --version; pwd; } | cksum; }

[ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted)" ] && exit 0
echo "setup: making $VENV and installing into it; nothing else is changed" >&2
rm -rf "$VENV"
.venv/bin/python -m venv "$VENV" || { echo "cause: could not make $VENV" >&2; exit 1; }
# shellcheck disable=SC2086 # one word per package
if ! "$VENV/bin/python" -m pip install -q --no-input --disable-pip-version-check $PEERS \
    >"$LOG" 2>&1; then
    printf 'cause: %s\nnext:  less %s\n' "$(grep -i error "$LOG" | tail -n 1)" "$LOG" >&2
    exit 1
fi
wanted >"$STAMP"
