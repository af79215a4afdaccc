"""`StoreTransport`: makes a transport of a `Store`.

A store's author writes::

    transport = StoreTransport("memory", FEATURES, open_store)

and names it in the entry-point group ``queue_core.transports``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from queue_core.arguments import check_kind
from queue_core.emulation.session import EmulatedSession
from queue_core.errors import ConfigError
from queue_core.transport import Features, SessionOptions, Store
from queue_core.url import BrokerURL

__all__ = ["StoreTransport"]

_METHODS: Final = [
    name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")
]


class StoreTransport:
    """A `Transport` whose sessions are emulated on a store.

    Attributes:
        name: for people.
        features: the store's own, and all that is emulated.
    """

    def __init__(
        self,
        name: str,
        features: Features,
        open_store: Callable[[BrokerURL, SessionOptions], Store],
        check: Callable[[BrokerURL], None] | None = None,
    ) -> None:
        """Keep the settings; nothing is opened.

        Args:
            name: for people and errors.
            features: the store's own abilities, up to ``key_value``.
            open_store: returns a new handle; may connect, within the options' connect_timeout. If
                it returns what is no store, opening a connection raises ConfigError.
            check: raises ConfigError for a URL that is wrong; does not connect. Without it a URL
                with options is refused.

        Raises:
            ConfigError: something of this is not what it must be.
        """
        check_kind("the name of a transport", name, str, "a string")
        check_kind("what a transport can do", features, Features, "a Features(...)")
        check_kind("open_store", open_store, Callable, "a function of url and options")  # type: ignore[arg-type] # an ABC
        self.name = name
        self.features = replace(
            features,
            deduplicate=True,
            atomic_settle=True,
            requeue_in_place=True,
            message_ttl=True,
            queue_expiry=True,
            max_length=True,
            dead_letter=True,
            max_deliveries=True,
            exclusive=True,
            auto_delete=True,
            exchange_bindings=True,
            attempts=True,
            arguments=False,
        )
        self._open_store = open_store
        self._check = check

    def check(self, url: BrokerURL) -> None:
        """See `Transport.check`."""
        if self._check is None:
            url.check_options(())
        else:
            self._check(url)

    def open(self, url: BrokerURL, options: SessionOptions) -> EmulatedSession:
        """See `Transport.open`."""
        self.check(url)

        def open_store(seconds: float) -> Store:
            within = min(seconds, options.connect_timeout)
            store = self._open_store(url, replace(options, connect_timeout=within))
            missing = [name for name in _METHODS if not hasattr(store, name)]
            if missing:
                raise ConfigError(
                    f"the {self.name} transport opens stores with {self._open_store!r:.80}, and "
                    f"what that returned ({store!r:.60}) lacks {', '.join(missing)}; see "
                    "queue_core.transport.Store"
                )
            return store

        return EmulatedSession(self.name, self.features, options, open_store)
