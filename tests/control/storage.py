"""A Cinder in memory, which holds to its rules, and to ours: never is a volume attached to two hosts."""

from typing import Any

from higgins.model.block_storage import StoredVolume
from higgins.model.errors import Conflict
from higgins.openstack.errors import ServiceRefused
from tests.control.conftest import Stop


class FakeStorage:
    """``fails`` is raised by the next verbs until it is None; ``loses`` by the next one, after it was done.

    Who attaches next comes to ``stopped``.
    """

    def __init__(self) -> None:
        self.volumes: dict[str, StoredVolume] = {}
        self.made_for: dict[str, str] = {}  # use → volume
        self.attached: dict[str, dict[str, str]] = {}  # volume → use → host
        self.trusts: set[str] = set()
        self.fails: Exception | None = None
        self.loses: Exception | None = None
        self.stopped: Stop | None = None

    def add(self, name: str, *, status: str = "available", multiattach: bool = False, size: int = 1) -> str:
        ident = f"00000000-0000-4000-8000-{len(self.volumes):012}"
        self.volumes[ident] = StoredVolume(id=ident, name=name, size=size, status=status, multiattach=multiattach)
        self.attached[ident] = {}
        return ident

    def status(self, ident: str) -> str:
        return "in-use" if self.attached[ident] else self.volumes[ident].status

    @property
    def empty(self) -> bool:
        """Whether nothing is left but the volumes of tenants."""
        return not self.trusts and not any(self.attached.values())

    def _maybe(self) -> None:
        if self.fails is not None:
            raise self.fails

    def _done(self) -> None:
        error, self.loses = self.loses, None
        if error is not None:
            raise error

    async def find(self, token: str, ident: str) -> StoredVolume | None:
        self._maybe()
        found = [one for one in self.volumes.values() if ident in (one.id, one.name)]
        if len(found) > 1:
            raise Conflict("Several volumes have this name.")
        if not found:
            return None
        one = found[0]
        return StoredVolume(
            id=one.id, name=one.name, size=one.size, status=self.status(one.id), multiattach=one.multiattach
        )

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str:
        self._maybe()
        trust = f"trust-{user_id}-{len(self.trusts)}"
        self.trusts.add(trust)
        return trust

    async def give_back(self, trust: str) -> None:
        self._maybe()
        self.trusts.discard(trust)

    async def make(self, trust: str, *, use: str, name: str, size: int) -> str:
        self._maybe()
        assert trust in self.trusts
        if use not in self.made_for:
            self.made_for[use] = self.add(name, size=size)
        self._done()
        return self.made_for[use]

    async def attach(self, trust: str, ident: str, *, use: str, connector: dict[str, Any]) -> dict[str, Any]:
        self._maybe()
        assert trust in self.trusts
        stopped, self.stopped = self.stopped, None
        if stopped is not None:
            await stopped.here()
        there, host = self.attached[ident], connector["host"]
        if there and use not in there and not self.volumes[ident].multiattach:
            raise ServiceRefused("Cinder", f"volume {ident} cannot be attached", "it is in use", final=False)
        assert not set(there.values()) - {host}, f"{ident} would be attached to {there} and {host}"
        there[use] = host
        self._done()
        return {"driver_volume_type": "local", "device_path": f"/dev/{ident}", "auth_password": "topsecret"}

    async def detach(self, trust: str, ident: str, *, use: str) -> None:
        self._maybe()
        self.attached.get(ident, {}).pop(use, None)
        self._done()

    async def delete(self, trust: str, *, use: str, ident: str | None) -> None:
        self._maybe()
        gone = ident or self.made_for.get(use)
        if gone is not None:
            assert not self.attached.get(gone)
            self.volumes.pop(gone, None)
            self.attached.pop(gone, None)
        self._done()
