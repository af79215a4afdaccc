"""Jobs for pools, and what became of them."""

import itertools
import json
import threading

from queue_core import Properties
from queue_core.emulation import stored
from queue_core.testing.eventually import eventually
from queue_core.worker.outcome import Done, Job
from queue_core.worker.protocol import Call, task_body, task_headers


def runs(mark, count=1):
    """Wait until ``count`` tasks have said that they run, by a file beside this one."""
    eventually(lambda: len(list(mark.parent.glob(f"{mark.name}.*.runs"))) >= count)


class Reports:
    """Collects outcomes; a ticket that is reported twice is an error."""

    def __init__(self):
        self.outcomes = {}
        self.twice = []
        self._tickets = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, ticket, outcome):
        with self._lock:
            if ticket in self.outcomes:
                self.twice.append(ticket)
            self.outcomes[ticket] = outcome

    def job(self, name, *args, soft=None, hard=None, own=(None, None)):
        """Make a job. ``own``: the hard and the soft limit that its message asks for."""
        ticket = next(self._tickets)
        hard_limit, soft_limit = own
        call = Call(name, str(ticket), list(args), {}, hard_limit=hard_limit, soft_limit=soft_limit)
        headers = task_headers(call, origin="o")
        properties = Properties("application/json", "utf-8", headers)
        raw = stored.encode("", "q", properties)
        body = json.dumps(task_body(call)).encode()
        return Job(ticket, name, "q", 1, False, raw, stored.READER.home, body, soft, hard)

    def submit(self, pool, name, *args, **limits):
        """Give a pool a job, and return it."""
        job = self.job(name, *args, **limits)
        pool.submit(job)
        return job

    def hold(self, pool, gate, count=1):
        """Give a pool ``count`` jobs that wait for a gate to open, and wait until they run."""
        jobs = [self.submit(pool, "wait_for", str(gate)) for _ in range(count)]
        runs(gate, count)
        return jobs

    def wait(self, count):
        eventually(lambda: len(self.outcomes) >= count, what=f"{count} outcomes")
        assert not self.twice
        return self.outcomes

    def value(self, job):
        eventually(lambda: job.ticket in self.outcomes, what=f"outcome of {job.name}")
        outcome = self.outcomes[job.ticket]
        assert isinstance(outcome, Done), outcome
        return json.loads(outcome.reply)["result"]

    def outcome(self, job):
        eventually(lambda: job.ticket in self.outcomes, what=f"outcome of {job.name}")
        return self.outcomes[job.ticket]
