"""A program of celery's users: an app with one task, and a node of kombu's own kind.

Runs in the environment of tools/peers.sh, with celery and kombu as they are published.
"""

import os
import sys

from celery import Celery
from kombu import Connection
from kombu.pidbox import Mailbox

app = Celery("program", broker=os.environ["BROKER"])


@app.task
def add(x, y):
    return x + y


def node(namespace, name):
    """Serve one command as kombu's programs do, until killed."""
    with Connection(os.environ["BROKER"]) as connection:
        box = Mailbox(namespace, type="fanout")(connection)
        channel = connection.channel()
        made = box.Node(name, state=None, channel=channel)

        @made.handler
        def double(state, number):
            return number * 2

        made.listen(channel=channel)
        print("ready", flush=True)
        while True:
            connection.drain_events()


if __name__ == "__main__":
    node(*sys.argv[1:])
