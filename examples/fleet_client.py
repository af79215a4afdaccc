"""Remote control of the nodes of ``fleet_node.py``, from any machine that reaches the broker.

Once nodes run::

    python examples/fleet_client.py sqlite:///fleet.db
"""

import sys

from queue_core import Connection
from queue_core.mailbox import Mailbox


def main(url: str) -> None:
    """Look at every node, follow one, pause all, and end them."""
    with Connection(url) as connection, Mailbox("fleet", connection) as box:
        names = sorted(box.nodes())
        if not names:
            sys.exit("nobody is there; start fleet_node.py first")
        print("nodes:", ", ".join(names))

        answers = box.multi_call("stats", timeout=2.0)
        for name, stats in answers.items():
            print(f"{name} counts: {stats['running']}")
        for name in answers.missing:
            print(f"{name} does not answer")

        items = box.stream("next_steps", {"count": 2}, timeout=2.0, destinations=names[:1])
        print("one by one:", len(list(items)))

        print("pause:", dict(sorted(box.multi_call("pause", timeout=2.0).items())))

        mistake = box.call(names[:1], "next_steps", {"count": "many"}, timeout=2.0)
        print("a mistake:", mistake.errors[names[0]])

        box.abcast("resume")
        ended = box.multi_call("shutdown", timeout=2.0)
        print("shutdown:", dict(sorted(ended.items())))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python fleet_client.py URL, such as sqlite:///fleet.db")
    main(sys.argv[1])
