"""What becomes of a volume that is made while another process makes it, too."""

from collections.abc import Callable
from typing import Any

import pytest

from higgins.openstack.cinder import USE, Cinder
from higgins.openstack.errors import ServiceBusy


class Answer:
    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def json(self) -> dict[str, Any]:
        return self._told


class Volumes:
    """Sessions with a Cinder that keeps volumes; ``meanwhile`` is what another does before one is made here."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    def trusting(self, service_type: str, trust: str) -> "Volumes":
        return self

    def get_token(self) -> str:
        return "token"

    def get(self, path: str, params: object = None) -> Answer:
        ident = path.removeprefix("/volumes/")
        return Answer({"volume": self.there[ident]} if ident in self.there else {"volumes": list(self.there.values())})

    def post(self, path: str, json: dict[str, Any], connect_retries: int) -> Answer:
        others, self.meanwhile = self.meanwhile, lambda: None
        others()
        return Answer({"volume": self.add(json["volume"]["metadata"][USE])})

    def add(self, use: str) -> dict[str, Any]:
        ident, now = f"v{len(self.there)}", f"2026-06-01T12:00:0{len(self.there)}"
        self.there[ident] = {"id": ident, "status": "available", "metadata": {USE: use}, "created_at": now}
        return self.there[ident]

    def delete(self, path: str) -> None:
        del self.there[path.removeprefix("/volumes/")]


async def test_of_two_volumes_that_were_made_for_one_use_the_first_stays() -> None:
    volumes = Volumes()
    volumes.meanwhile = lambda: volumes.add("use")
    cinder = Cinder(volumes)  # type: ignore[arg-type]
    with pytest.raises(ServiceBusy, match="made twice"):
        await cinder.make("trust", use="use", name="data", size=1)
    assert list(volumes.there) == ["v0"]
    assert await cinder.make("trust", use="use", name="data", size=1) == "v0"
    assert await cinder.make("trust", use="other", name="data", size=1) == "v1"
    assert list(volumes.there) == ["v0", "v1"]
