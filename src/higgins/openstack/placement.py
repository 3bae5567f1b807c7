"""What Higgins holds of hosts, told to Placement. Implements ``higgins.model.shares``.

A resource provider of the host's name that is there already is Nova's: its inventory is left alone, and only what
Higgins holds is allocated. Otherwise Higgins makes the provider, under the uuid that the host has here, and by that
knows it again as its own.

What is held of a host is one allocation, or several where it is more than the provider lets a single consumer have
(``max_unit``: the physical cores, for Nova). They are written together, so Placement has all of it or nothing.
"""

import asyncio
import uuid as uuids
from collections.abc import Callable
from typing import Any, TypeVar

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as failures

from higgins.model.errors import HigginsError
from higgins.model.shares import Amount, Offer
from higgins.openstack.errors import NotInCatalogue, ServiceRefused, ServiceUnavailable
from higgins.openstack.sessions import Sessions

T = TypeVar("T")

#: Kinds of consumers (Xena); it brings generations of consumers along.
_VERSION = "1.38"
_KIND = "CONTAINER"
_CLASSES = {"VCPU": "cpu", "MEMORY_MB": "memory", "DISK_GB": "disk"}
#: How often others may be quicker in a row.
_TRIES = 10
#: What the uuids of consumers are derived with.
_NAMESPACE = uuids.UUID("6a7b5e52-6f0e-4f5e-9f43-2d1d7a8a3c11")


class Placement:
    """In Higgins' own name: the role ``service`` is enough."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def hold(self, *, name: str, uuid: str, offer: Offer, amounts: list[Amount]) -> Amount | None:
        def work() -> Amount | None:
            client = self._client()
            provider = _offered(client, name, uuid, offer)
            return next((one for one in amounts if self._held(client, provider, uuid, one)), None)

        return await self._asked(f"host {name} cannot be shared", work)

    async def let_go(self, *, name: str, uuid: str) -> None:
        def work() -> None:
            client = self._client()
            provider = _provider(client, name)
            if provider is None:
                return
            self._held(client, provider, uuid, Amount())
            if provider == uuid:
                _delete(client, f"/resource_providers/{uuid}")

        await self._asked(f"host {name} cannot be given back", work)

    def _client(self) -> adapter.Adapter:
        client = self._sessions.own("placement")
        client.default_microversion = _VERSION
        return client

    async def _asked(self, doing: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except HigginsError:
            raise
        except failures.HttpError as error:
            if error.http_status in (401, 429) or (error.http_status or 0) >= 500:
                raise ServiceUnavailable("Placement", doing) from error
            raise ServiceRefused(
                "Placement", doing, f"{error.details or error.message} ({error.http_status})"
            ) from error
        except failures.EndpointNotFound as error:
            raise NotInCatalogue("placement") from error
        except failures.ClientException as error:
            raise ServiceUnavailable("Placement", doing) from error

    def _held(self, client: adapter.Adapter, provider: str, uuid: str, amount: Amount) -> bool:
        """Whether it fits. What was held before stays where it does not."""
        for _ in range(_TRIES):
            inventories = client.get(f"/resource_providers/{provider}/inventories").json()["inventories"]
            parts = split(amount, {one: int(inventories[one]["max_unit"]) for one in _CLASSES if one in inventories})
            there = client.get(f"/resource_providers/{provider}/allocations").json()["allocations"]
            body = {
                consumer: self._consumer(client, consumer, provider, parts[number] if number < len(parts) else {})
                for number in range(max(len(parts), len(there)))
                if (consumer := _consumer_of(uuid, number)) in there or number < len(parts)
            }
            if not body:
                return True
            answer = client.post("/allocations", json=body, raise_exc=False)
            if answer.status_code < 300:
                return True
            if answer.status_code != 409:
                raise failures.from_response(answer, "POST", "/allocations")
            if "concurrent_update" not in answer.text:
                return False
        raise ServiceUnavailable("Placement", f"what is held of host {provider} cannot be told among so many others")

    def _consumer(
        self, client: adapter.Adapter, consumer: str, provider: str, resources: dict[str, int]
    ) -> dict[str, Any]:
        """One consumer as it shall be; without resources it is none any more."""
        now = client.get(f"/allocations/{consumer}").json()
        return {
            "allocations": {provider: {"resources": resources}} if resources else {},
            "project_id": now.get("project_id") or client.get_project_id(),
            "user_id": now.get("user_id") or client.get_user_id(),
            "consumer_generation": now.get("consumer_generation"),
            "consumer_type": _KIND,
        }


def split(amount: Amount, most: dict[str, int]) -> list[dict[str, int]]:
    """Pure: the parts of an amount, by resource class, none of them more than a single consumer may have.

    What the provider has no inventory of is not asked of it.
    """
    left = {one: getattr(amount, name) for one, name in _CLASSES.items() if one in most}
    parts: list[dict[str, int]] = []
    while any(left.values()):
        part = {one: min(count, most[one]) for one, count in left.items() if count}
        left = {one: count - part.get(one, 0) for one, count in left.items()}
        parts.append(part)
    return parts


def inventories(offer: Offer) -> dict[str, dict[str, Any]]:
    """Pure: what a host offers, in Placement's words. A single consumer may have all of it."""
    ratios = {"VCPU": offer.cpu_ratio, "MEMORY_MB": offer.memory_ratio, "DISK_GB": offer.disk_ratio}
    told: dict[str, dict[str, Any]] = {}
    for one, name in _CLASSES.items():
        total = getattr(offer.total, name)
        if total > 0:
            most = max(int(total * ratios[one]), 1)
            told[one] = {"total": total, "allocation_ratio": ratios[one], "max_unit": most}
    return told


def _consumer_of(uuid: str, number: int) -> str:
    return str(uuids.uuid5(_NAMESPACE, f"{uuid}/{number}"))


def _provider(client: adapter.Adapter, name: str) -> str | None:
    found = client.get("/resource_providers", params={"name": name}).json()["resource_providers"]
    return str(found[0]["uuid"]) if found else None


def _offered(client: adapter.Adapter, name: str, uuid: str, offer: Offer) -> str:
    """The provider of a host's name; one of our own has the inventory that it offers."""
    provider = _provider(client, name)
    if provider is None:
        answer = client.post("/resource_providers", json={"name": name, "uuid": uuid}, raise_exc=False)
        if answer.status_code >= 300 and answer.status_code != 409:
            raise failures.from_response(answer, "POST", "/resource_providers")
        provider = _provider(client, name)  # somebody else may have been quicker
        if provider is None:
            raise ServiceUnavailable("Placement", f"host {name} cannot be offered")
    if provider != uuid:
        return provider
    wanted, path = inventories(offer), f"/resource_providers/{uuid}/inventories"
    for _ in range(_TRIES):
        there = client.get(path).json()
        same = {one: {key: kept[key] for key in wanted.get(one, {})} for one, kept in there["inventories"].items()}
        if same == wanted:
            return uuid
        body = {"resource_provider_generation": there["resource_provider_generation"], "inventories": wanted}
        answer = client.put(path, json=body, raise_exc=False)
        if answer.status_code < 300:
            return uuid
        if answer.status_code != 409 or "concurrent_update" not in answer.text:
            raise failures.from_response(answer, "PUT", path)
    raise ServiceUnavailable("Placement", f"what host {name} offers cannot be told among so many others")


def _delete(client: adapter.Adapter, path: str) -> None:
    """What is gone already is no error, nor what others use still."""
    answer = client.delete(path, raise_exc=False)
    if answer.status_code >= 300 and answer.status_code not in (404, 409):
        raise failures.from_response(answer, "DELETE", path)
