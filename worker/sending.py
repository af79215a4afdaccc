"""What an app holds in one process: its connection, and its way of getting results.

A task is encoded and its result expected before it is sent, so that an argument that cannot be
written leaves nothing behind, and no result comes too early.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from queue_core import (
    ConfigError,
    Connection,
    Producer,
    Unroutable,
    Unsupported,
    UsageError,
)
from queue_core.worker.composing import Composer, check_options
from queue_core.worker.failure import Errors
from queue_core.worker.following import children
from queue_core.worker.hooks import Hooks
from queue_core.worker.outcome import Letter
from queue_core.worker.patience import HURRY, patience, read_policy
from queue_core.worker.request import current_request
from queue_core.worker.results.base import Results
from queue_core.worker.results.groups import GroupResult, delete_group, load_group, save_group
from queue_core.worker.results.key_value import KeyValueResults, require_key_value
from queue_core.worker.results.options import result_options
from queue_core.worker.results.result import AsyncResult
from queue_core.worker.results.rpc import ReplyQueue
from queue_core.worker.settings import Settings
from queue_core.worker.signature import CHAIN, CHORD, GROUP, Signature, members
from queue_core.worker.task import Task
from queue_core.worker.unfolding import Handle, freeze, unfold
from queue_core.worker.unique import unique_key
from queue_core.worker.variables import URL_VARIABLE

RPC: Final = ("rpc", "rpc://")
TOGETHER: Final = 100
"""Of many tasks that are to be noted as sent, how many are at once."""

FindTask = Callable[[str], Task[..., Any] | None]


class Revoke(Protocol):
    """Tells all workers that tasks shall not run."""

    def __call__(self, task_id: Sequence[str], /, *, terminate: bool, signal: str) -> object:
        """With ``terminate`` also those that run already are ended, by ``signal``."""


class Sender:
    """Sends tasks, and receives results. Thread-safe.

    Locks are made in the process that uses them, so a fork inherits none that is held.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        composer: Composer,
        find_task: FindTask,
        hooks: Hooks,
        revoke: Revoke,
        errors: Errors,
    ) -> None:
        """Nothing is connected yet; raises ConfigError if the settings name no broker.

        Args:
            settings, composer, find_task, hooks: the app's.
            revoke: its remote control's.
            errors: which exceptions may be made of failures.
        """
        if not settings.broker_url:
            raise ConfigError(
                "the app has no broker: App(broker='sqlite:///queue.db'), "
                f"or the variable {URL_VARIABLE}"
            )
        self.connection = Connection(
            settings.broker_url, connect_timeout=settings.broker_connection_timeout
        )
        self._settings = settings
        self._producer: Producer = self.connection.producer()
        self._composer = composer
        self._find_task = find_task
        self._hooks = hooks
        self._revoke = revoke
        self.errors = errors
        self._options = result_options(settings)
        self._usual_patience = patience(settings.task_publish_retry_policy)
        self._pid = os.getpid()
        self._backend = settings.result_backend
        self._lock = threading.Lock()
        self._declared: set[str] = set()
        self._results: Results | None = None
        self._backend_connection: Connection | None = None

    # --- sending ---------------------------------------------------------------------------------

    def send(self, signature: Signature[Any]) -> AsyncResult[Any]:
        """Send the first tasks of a signature; see `App.send`."""
        options = signature.options
        check_options(options)
        task = self._find_task(signature.task)
        ignored = self._ignored(task, options.get("ignore_result"))
        letters, handle = self._letters(signature, ignored=ignored)
        unique_for = None if task is None else task.unique_for
        claim = None if unique_for is None else self._claim(signature, unique_for, handle.id)
        if isinstance(claim, AsyncResult):
            return claim
        try:
            (result,) = self._expected([handle], ignored=ignored)
            self._post(
                letters,
                transaction=options.get("transaction"),
                timeout=self._patience(options),
            )
        except BaseException:
            if claim is not None:
                self._store().key_value().key_delete(unique_key(signature), version=claim)
            raise
        _note_children(letters)
        self._tell(letters)
        return result

    def send_many(
        self, name: str, calls: Iterable[Sequence[Any]], options: Mapping[str, Any]
    ) -> list[AsyncResult[Any]]:
        """Send one task for each sequence of arguments; see `App.send_many`."""
        check_options(options)
        if options.get("task_id"):
            raise UsageError("each of many tasks has an id of its own; task_id= cannot be given")
        task = self._find_task(name)
        if task is not None and task.unique_for is not None:
            raise UsageError(f"task {name} is unique; such tasks are sent one by one")
        found: list[AsyncResult[Any]] = []
        sent: list[Letter] = []
        transaction, timeout = options.get("transaction"), self._patience(options)
        ignored = self._ignored(task, options.get("ignore_result"))

        def one(args: Sequence[Any]) -> Signature[Any]:
            return Signature(name, list(args), {}, dict(options))

        def prepared() -> Iterator[Letter]:
            for some in _several(calls, TOGETHER if self._options.track_sent else 1):
                made = [self._letters(one(args), ignored=ignored) for args in some]
                found.extend(self._expected([handle for _, handle in made], ignored=ignored))
                letters = [letter for several, _ in made for letter in several]
                self._declare(letters)
                _note_children(letters)
                if self._hooks.after_publish:
                    sent.extend(letters)
                yield from letters

        if transaction is None:
            self._producer.publish_many((one.publication for one in prepared()), timeout=timeout)
        else:
            for letter in prepared():
                self._post_in(transaction, letter, timeout)
        self._tell(sent)
        return found

    def _tell(self, letters: Iterable[Letter]) -> None:
        """Tell that the broker has these."""
        if self._hooks.after_publish:
            for letter in letters:
                self._hooks.after_publish.tell(letter)

    def _letters(self, signature: Signature[Any], *, ignored: bool) -> tuple[list[Letter], Handle]:
        """Encode what is to be sent now."""
        reply_to = None if ignored else self.results().reply_to()
        frozen, handle = freeze(signature, reply_to=reply_to)
        if signature.subtask_type is not None and _counts(frozen):
            self._need_counting()
        request = current_request()
        tasks = children(unfold(frozen), None if request is None else request.call)
        if self._hooks.before_publish:
            for task in tasks:
                self._hooks.before_publish.tell(task)
        return [self._composer.compose(task) for task in tasks], handle

    def _ignored(self, task: Task[..., Any] | None, said: bool | None) -> bool:
        if said is None:
            said = None if task is None else task.ignore_result
        return self._settings.task_ignore_result if said is None else bool(said)

    def _patience(self, options: Mapping[str, Any]) -> float | None:
        """Return within how many seconds a task must be sent; None: the connection's timeout.

        Raises ConfigError for a policy that is none.
        """
        retry = options.get("retry")
        if not (self._settings.task_publish_retry if retry is None else retry):
            return HURRY
        said = options.get("retry_policy")
        return patience(read_policy(said)) if said else self._usual_patience

    def _claim(
        self, signature: Signature[Any], seconds: float, task_id: str
    ) -> int | AsyncResult[Any]:
        """Be the one that sends these arguments, or return the handle of the other one.

        The number is the claim's version: it may be over, and another's, before they are sent.
        """
        store = self._store().key_value()
        key = unique_key(signature)
        while (claim := store.key_set(key, task_id.encode(), ttl=seconds, version=0)) is None:
            entry = store.key_get(key)
            if entry is not None:
                return self.result_of(entry.value.decode(), must=False)
        return claim

    def _post(
        self, letters: Sequence[Letter], *, transaction: object | None, timeout: float | None
    ) -> None:
        """Send; a queue that somebody deleted since it was declared is declared again."""
        self._declare(letters)
        if transaction is not None:
            for letter in letters:
                self._post_in(transaction, letter, timeout)
            return
        try:
            self._producer.publish_many([item.publication for item in letters], timeout=timeout)
        except Unroutable as error:
            rest = letters[len(error.receipts) :]
            self._declared -= {item.queue.name for item in rest if item.queue is not None}
            self._declare(rest)
            self._producer.publish_many([item.publication for item in rest], timeout=timeout)

    def _post_in(self, transaction: object, letter: Letter, timeout: float | None) -> None:
        publication = letter.publication
        properties = publication.properties
        self._producer.publish(
            publication.body,
            publication.routing_key,
            transaction=transaction,
            timeout=timeout,
            exchange=publication.exchange,
            headers=properties.headers,
            priority=properties.priority,
            delay=publication.delay,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
        )

    def _declare(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            queue = letter.queue
            if queue is not None and queue.name not in self._declared:
                self.connection.declare(queue)
                self._declared.add(queue.name)

    # --- results ---------------------------------------------------------------------------------

    def result_of(self, task_id: str, *, must: bool = True) -> AsyncResult[Any]:
        """Return the handle on a task that was sent before.

        Raises Unsupported where results reach only the sender; without ``must`` the handle then is
        one without a result.
        """
        try:
            kept, sent = self.results().recall(task_id)
        except Unsupported:
            if must:
                raise
            return AsyncResult(task_id, self)
        return AsyncResult(task_id, self, kept, sent=sent)

    def group_of(self, group_id: str) -> GroupResult | None:
        """Return a group that was saved; None if there is none of this id."""
        ids = load_group(self._store().key_value(), group_id)
        if ids is None:
            return None
        return GroupResult(group_id, [self.result_of(one) for one in ids], origin=self)

    def save(self, group_id: str, ids: Sequence[str]) -> None:
        """See `Origin.save`."""
        save_group(self._store().key_value(), group_id, ids, ttl=self._options.ttl)

    def drop(self, group_id: str) -> None:
        """See `Origin.drop`."""
        delete_group(self._store().key_value(), group_id)

    def revoke(self, ids: Sequence[str], *, terminate: bool, signal: str) -> None:
        """See `Origin.revoke`."""
        self._revoke(ids, terminate=terminate, signal=signal)

    def _expected(self, handles: Iterable[Handle], *, ignored: bool) -> list[AsyncResult[Any]]:
        """Return results of what is about to be sent."""
        ids: list[str] = []
        found = [self._expect(handle, None if ignored else ids) for handle in handles]
        if not ignored:
            self.results().announce(ids)
        return found

    def _expect(self, handle: Handle, ids: list[str] | None) -> AsyncResult[Any]:
        """Return one, and add its ids; with None it is ignored, and so is a part that says so."""
        parent = None if handle.parent is None else self._expect(handle.parent, ids)
        if handle.members is not None:
            found = [self._expect(member, ids) for member in handle.members]
            return GroupResult(handle.id, found, parent, self)
        if ids is None or (
            handle.task and self._ignored(self._find_task(handle.task), handle.ignored)
        ):
            return AsyncResult(handle.id, self, parent=parent)
        ids.append(handle.id)
        return AsyncResult(handle.id, self, self.results().expect(handle.id), parent=parent)

    def results(self) -> Results:
        """Return the side of the results that waits; the first call may declare a queue."""
        if self._results is None:
            with self._lock:
                if self._results is None:
                    self._results = self._choose()
                    atexit.register(self.close)
        return self._results

    def _choose(self) -> Results:
        if self._backend in RPC or (
            self._backend is None and not self.connection.features.key_value
        ):
            return ReplyQueue(self.connection)
        return KeyValueResults(self._store(), ReplyQueue(self.connection), self._options)

    def _store(self) -> Connection:
        """The connection that has a key-value store: the backend's, or the broker's."""
        if self._backend in (None, *RPC):
            require_key_value(self.connection)
            return self.connection
        if self._backend_connection is None:
            connection = Connection(str(self._backend))
            require_key_value(connection)
            self._backend_connection = connection
        return self._backend_connection

    def _need_counting(self) -> None:
        """Raise Unsupported, with the remedy, if the parts of a chord could not be counted."""
        if self._backend in (None, *RPC) and not self.connection.features.key_value:
            raise Unsupported(
                "key_value",
                self.connection.url.partition(":")[0],
                "the parts of a chord are counted in a store: App(backend='sqlite:///results.db'), "
                "or redis:// if the workers are on several machines",
            )

    def close(self) -> None:
        """End everything; may be called twice."""
        atexit.unregister(self.close)
        if os.getpid() != self._pid:
            return  # the exit of a forked child, which must leave the parent's reply queue alone
        if self._results is not None:
            self._results.close()
        if self._backend_connection is not None:
            self._backend_connection.close()
        self.connection.close()


def _note_children(letters: Iterable[Letter]) -> None:
    """Note them as sent by the task that runs in this thread, if one does."""
    request = current_request()
    if request is not None:
        request.children += [letter.publication.properties.headers["id"] for letter in letters]


def _several(items: Iterable[Sequence[Any]], count: int) -> Iterator[list[Sequence[Any]]]:
    """Yield ``count`` of them at a time."""
    rest = iter(items)
    while some := list(itertools.islice(rest, count)):
        yield some


def _counts(signature: Signature[Any]) -> bool:
    """Whether there is a chord in it."""
    return signature.task == CHORD or (
        signature.task in (CHAIN, GROUP) and any(_counts(part) for part in members(signature))
    )
