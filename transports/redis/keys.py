"""Where everything is in Redis: the keys of one broker, and the prefix that they share.

All keys begin with ``{PREFIX}:``. The braces make the prefix a hash tag, so that all keys are in
one slot and a script may use any of them. ``PREFIX`` comes from the URL's option ``prefix``, and
brokers with different prefixes know nothing of one another.

For each queue Q (the text after the colon is the queue's name):

============ ====== ================================================================================
``m:Q``      hash   id -> content, of every message that exists, claimed and dead ones too
``l0..l9:Q`` list   ready messages of each priority that were never delayed, claimed, or given a
                    ttl: ``seq:id``, appended at the right; nothing leaves from the middle
``r0..r9:Q`` zset   the other ready messages: id by seq; a claim merges both by seq
``s:Q``      set    the priorities that may have ready messages
``p0..p9:Q`` zset   delayed messages: id by seq, their place when they are due
``d:Q``      zset   delayed messages: mid (priority and id) by the time when they are due
``t:Q``      zset   unclaimed messages with a ttl: mid by the time when it is over
``x:Q``      zset   dead messages that nobody has collected: mid by seq
``a:Q``      hash   id -> attempts, crashes, max_deliveries, reason, where one is not zero
``c:LIFE:Q`` hash   id -> the record of its claim, of what one session holds
``h:Q``      set    lives of sessions that may hold messages of this queue
``b:Q``      list   bells, one to ten while there are ready messages: a claim that waits takes one
============ ====== ================================================================================

And once:

================= ====== ===========================================================================
``seq``           number the place of the message put last
``number``        number the version, beat or life given out last; never below the server's clock
``sessions``      hash   name -> lease, beats, life
``held:LIFE``     set    queues that a session may hold messages of
``wake:HANDLE``   list   a bell of one handle, when its wait was interrupted; short-lived
``versions``      hash   table entry -> version
``entries``       hash   table entry -> value
``dead``          set    queues with messages to collect
``ttl``           zset   queue by a time not after the next end of a ttl
``key:K``         hash   a key of `KeyValue`
``format``        text   the version of this layout
================= ====== ===========================================================================

Times are microseconds of the server's clock.
"""

from __future__ import annotations

import re
from typing import Final

from queue_core.errors import ConfigError

DEFAULT_PREFIX: Final = "qc"
FORMAT: Final = "1"

_PREFIX: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)


def root_of(prefix: str) -> bytes:
    """Return what all keys begin with.

    Raises:
        ConfigError: the prefix has other characters than letters, digits and ``_ . : -``, or more
            than 64.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"the option prefix={prefix!r} of a Redis URL must be 1 to 64 letters, digits or any "
            "of _ . : -"
        )
    return b"{%s}:" % prefix.encode()
