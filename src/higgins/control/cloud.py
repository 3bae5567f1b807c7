"""What every use case is given: the store, the settings, the secrets, the way to the hosts, and who asks."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet
from msgspec import Struct

from higgins.control.feed import Feed
from higgins.control.gathering import Gathering
from higgins.control.link import HostStreams
from higgins.control.placement.fleet import FleetCache
from higgins.control.settings import Settings
from higgins.control.terminals import OpenTerminals
from higgins.model.block_storage import BlockStorage
from higgins.model.errors import HigginsError, HostUnavailable
from higgins.model.limits import Limits
from higgins.model.networking import Networking
from higgins.store.clock import DatabaseClock
from higgins.store.database import Store

if TYPE_CHECKING:
    from higgins.control.delivery import Depot


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks, as authentication and policy have it."""

    user_id: str
    project_id: str
    roles: frozenset[str] = frozenset()
    is_admin: bool = False
    request_id: str = ""
    token: str = ""  # of Keystone's, to speak to other services with


#: Creates that one transaction makes at most: while it runs the next ones wait, so it is to be over soon.
_TOGETHER = 256
#: Hosts whose lease one transaction renews at most, and seconds for which the first of them waits for others.
_BEATS, _BEAT = 1000, 0.25


class WrongSecret(HigginsError):
    """The secret key of this process is not the one that something in the database was encrypted with."""


class Cloud:
    """The control plane of one cloud."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        settings: Settings | None = None,
        *,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.store = store
        self.settings = settings or Settings()
        self.secrets = Fernet(secret)
        self.consoles = OpenTerminals()
        self.fleet = FleetCache()
        self._clock = DatabaseClock()
        self.now: Callable[[], datetime] = clock or self._clock
        self.feed = Feed(store, self.now)
        #: Creates that wait to be made together; see ``together``.
        self.creates: Gathering[Any, Any] = Gathering(_TOGETHER)
        #: Hosts without news whose lease is to be renewed, by number; see ``hosts.assignments``.
        self.beats: Gathering[int, None] = Gathering(_BEATS, _BEAT)
        self._hosts: dict[str, HostStreams] = {}
        #: Finds the way to a host that is not in this process, by its name; None where there is no such host.
        self.dial: Callable[[str], Awaitable[HostStreams | None]] | None = None
        #: The service that volumes are made and found in, where hosts' disks are not all there is.
        self.storage: BlockStorage | None = None
        #: Who keeps the limits of projects, where the database does not.
        self.limits: Limits | None = None
        #: The cloud's own network service, where networks are not Higgins'.
        self.networking: Networking | None = None
        #: Where images of the cloud's image service are, if it has one.
        self.depot: Depot | None = None

    async def keep_time(self) -> timedelta:
        """Have ``now`` be the database's time, which all replicas share; how large a step that has made, if any.

        To be called at the start and again and again, since clocks drift.
        """
        return await self._clock.set(self.store)

    def connect(self, host: str, streams: HostStreams) -> None:
        """From now on ``host`` is reached through ``streams``."""
        self._hosts[host] = streams

    def disconnect(self, host: str) -> None:
        self._hosts.pop(host, None)

    async def streams(self, host: str | None) -> HostStreams:
        """The way to a host; raises HostUnavailable where there is none now."""
        found = self._hosts.get(host) if host is not None else None
        if found is None and host is not None and self.dial is not None:
            found = await self.dial(host)
        if found is None:
            raise HostUnavailable(f"Host {host or 'of this container'} does not answer now; try again later.")
        return found
