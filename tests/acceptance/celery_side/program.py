"""A program of celery's users: an app with one task, and a node and a client of kombu's own kind.

Runs in the environment of tools/peers.sh, with celery and kombu as they are published.
"""

import json
import os
import sys

from celery import Celery
from kombu import Connection
from kombu.pidbox import Mailbox

app = Celery("program", broker=os.environ["BROKER"])
app.conf.control_exchange = os.environ.get("NAMESPACE", "celery")


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


def client(namespace, name, timeout="10"):
    """Ask our node in each way that kombu has, and print what came."""
    with Connection(os.environ["BROKER"]) as connection:
        box = Mailbox(namespace, type="fanout")(connection)
        said = {
            "call": box.call([name], "double", {"number": 1}, timeout=float(timeout)),
            "all": box.multi_call("double", {"number": 2}, timeout=float(timeout), limit=1),
            "wrong": box.call([name], "double", {"number": "x"}, timeout=float(timeout)),
        }
        for matcher, pattern in (("glob", "our*"), ("pcre", r"o\w+s$"), ("glob", "their*")):
            said[f"{matcher} {pattern}"] = box._broadcast(
                "double",
                {"number": 3},
                reply=True,
                timeout=min(2, float(timeout)),
                pattern=pattern,
                matcher=matcher,
            )
        box.cast([name], "note", {"text": "cast"})
        box.abcast("note", {"text": "abcast"})
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    {"node": node, "client": client}[sys.argv[1]](*sys.argv[2:])
