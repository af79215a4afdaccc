"""A pool in which nothing happens by itself, for machines that decide what runs and how it ends."""

from __future__ import annotations

from collections import deque

from queue_core.worker.outcome import Returned, Terminated


class ManualPool:
    """Keeps the jobs that wait and those that run; who tests moves them, and ends them."""

    def __init__(self):
        self.report = None
        self.waiting = deque()
        self.running = []

    def submit(self, job):
        self.waiting.append(job)

    def withdraw(self, ticket):
        for job in self.waiting:
            if job.ticket == ticket:
                self.waiting.remove(job)
                self.report(ticket, Returned())
                return True
        return False

    def terminate(self, ticket, number):
        if any(job.ticket == ticket for job in self.running):
            self.end(ticket, Terminated())
            return True
        return False

    def end(self, ticket, outcome):
        self.running = [job for job in self.running if job.ticket != ticket]
        self.report(ticket, outcome)

    def abort(self):
        raise AssertionError("nobody asked for that")
