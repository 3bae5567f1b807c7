"""Volumes of Cinder, attached by its attachments API. Implements ``higgins.model.block_storage``.

All requests that change something go in the name of the user who gave a trust, with a service token of Higgins' own
beside it: Cinder then lets Higgins detach without asking Nova. When a trust is over (its user is gone, or lost a role)
nothing more is made or attached, and what is left to be taken away is tried in Higgins' own name, which helps where the
operator made it an administrator of Cinder.

An attachment bears the uuid of Higgins' use of the volume in the place of a server's. By that it is found after a
crash, and by that Cinder itself refuses a second one for another use, be it on the same host or on another.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from keystoneauth1 import adapter
from keystoneauth1 import exceptions as failures

from higgins.model.block_storage import StoredVolume
from higgins.model.errors import Conflict, HigginsError, Unauthorized
from higgins.openstack import trusts
from higgins.openstack.errors import NotInCatalogue, ServiceBusy, ServiceRefused, ServiceUnavailable
from higgins.openstack.sessions import Sessions
from higgins.openstack.tokens import Token

LOG = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE_TYPE = "block-storage"
#: Attachments that tell how they are attached (mode), and are completed: Queens and later.
_VERSION = "3.54"
#: The key of the metadata by which a volume that Higgins made is found again.
USE = "higgins_use"
#: Seconds that a volume may take to be made or deleted before the caller is told to come again.
_PATIENCE = 20.0
_LOOK = 0.5
#: What is done by trusts at a time, each of them for as long as the patience.
_AT_ONCE = 8
_MOST_KEPT = 1000
#: Statuses in which Cinder works on a volume, and another follows.
_WORKING = frozenset({"creating", "downloading", "deleting", "retyping", "extending", "backing-up"})


class _Client:
    """Cinder in somebody's name. ``everywhere``: an administrator's, who finds what is in any project."""

    def __init__(self, api: adapter.Adapter, *, everywhere: bool = False) -> None:
        api.default_microversion = _VERSION
        self.api = api
        self._more = {"all_tenants": "1"} if everywhere else {}

    def listed(self, what: str, path: str, **which: str) -> list[dict[str, Any]]:
        return list(self.api.get(path, params=which | self._more).json()[what])


class Cinder:
    """The block storage service of the catalogue. ``volume_type`` of new volumes; Cinder's default if empty."""

    def __init__(self, sessions: Sessions, *, volume_type: str = "", patience: float = _PATIENCE) -> None:
        self._sessions = sessions
        self._volume_type = volume_type
        self._patience = patience
        self._clients: dict[str, _Client] = {}
        # Of their own: where many volumes are slow, those that callers wait for are still to be had.
        self._patient = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="cinder")

    # the caller's own

    async def find(self, token: str, ident: str) -> StoredVolume | None:
        client = _Client(self._sessions.caller(SERVICE_TYPE, token))
        return await _asked("the volume cannot be looked up", lambda: _find(client, ident))

    async def entrust(self, token: str, *, user_id: str, project_id: str, roles: frozenset[str]) -> str:
        who = Token(user_id, project_id, roles, expires=datetime.now(UTC))
        return await asyncio.to_thread(trusts.entrust, self._sessions, token, who)

    async def give_back(self, trust: str) -> None:
        self._clients.pop(trust, None)
        await asyncio.to_thread(trusts.give_back, self._sessions, trust)

    # by a trust

    async def make(self, trust: str, *, use: str, name: str, size: int) -> str:
        doing = f"volume {name} cannot be made"
        body: dict[str, Any] = {"name": name, "size": size, "metadata": {USE: use}}
        if self._volume_type:
            body["volume_type"] = self._volume_type

        def work() -> str:
            client = self._user(trust, doing)
            found = next(iter(_made_for(client, use)), None)
            if found is None:
                # Not sent again by itself: where only the answer was lost there would be two.
                found = client.api.post("/volumes", json={"volume": body}, connect_retries=0).json()["volume"]
            ident = str(found["id"])
            status = self._settled(client, ident, str(found["status"]))
            if status in _WORKING:
                raise ServiceBusy(f"Volume {name} is still {status} in Cinder; that is awaited.")
            if status is None or status.startswith("error"):
                # Nothing was ever on it; the next try makes another.
                _delete(client, f"/volumes/{ident}")
                raise ServiceRefused("Cinder", doing, f"it ended as {status or 'deleted'} there", final=False)
            first = min(_made_for(client, use), key=lambda one: (one["created_at"], one["id"]), default=None)
            if first is not None and first["id"] != ident:  # somebody made one meanwhile
                _delete(client, f"/volumes/{ident}")
                raise ServiceBusy(f"Volume {name} was made twice in Cinder; the second one is deleted.")
            return ident

        return await _asked(doing, work, self._patient)

    async def attach(self, trust: str, ident: str, *, use: str, connector: dict[str, Any]) -> dict[str, Any]:
        doing = f"volume {ident} cannot be attached"

        def work() -> dict[str, Any]:
            client = self._user(trust, doing)
            attachment = self._reusable(client, ident, use, connector)
            if attachment is None:
                status = self._settled(client, ident, None)
                if status is None:
                    raise ServiceRefused("Cinder", doing, "it is not there any more, or not yours")
                if status in _WORKING:
                    raise ServiceBusy(f"Volume {ident} is still {status} in Cinder; that is awaited.")
                if status not in ("available", "in-use"):
                    raise ServiceRefused("Cinder", doing, f"its status is {status}", final=status == "error")
                body = {"volume_uuid": ident, "instance_uuid": use, "connector": connector}
                made = client.api.post("/attachments", json={"attachment": body}, connect_retries=0)
                attachment = made.json()["attachment"]
            if attachment["status"] != "attached":
                client.api.post(f"/attachments/{attachment['id']}/action", json={"os-complete": None})
            return dict(attachment["connection_info"])

        return await _asked(doing, work, self._patient)

    async def detach(self, trust: str, ident: str, *, use: str) -> None:
        def work() -> None:
            client = self._cleaner(trust)
            for attachment in _attachments(client, ident, use):
                _delete(client, f"/attachments/{attachment['id']}")

        await _asked(f"volume {ident} cannot be detached", work, self._patient)

    async def delete(self, trust: str, *, use: str, ident: str | None) -> None:
        doing = f"volume {ident or use} cannot be deleted"

        def work() -> None:
            client = self._cleaner(trust)
            found = {str(one["id"]) for one in _made_for(client, use)} | ({ident} if ident else set())
            for one in sorted(found):
                status = self._settled(client, one, None, "deleting")
                if status is not None and status != "deleting":
                    _delete(client, f"/volumes/{one}")
                    status = self._settled(client, one, None)
                if status is not None:
                    raise ServiceBusy(f"Volume {one} is still {status} in Cinder; that is awaited.")

        await _asked(doing, work, self._patient)

    # parts, all of them blocking

    def _reusable(self, client: _Client, ident: str, use: str, connector: dict[str, Any]) -> dict[str, Any] | None:
        """The attachment that an earlier try made, if it is whole; what is not whole is taken away."""
        whole: dict[str, Any] | None = None
        for summary in _attachments(client, ident, use):
            one = client.api.get(f"/attachments/{summary['id']}").json()["attachment"]
            if one.get("connection_info") and not str(one["status"]).startswith("error") and whole is None:
                whole = one
            else:
                _delete(client, f"/attachments/{one['id']}")
        return whole

    def _settled(self, client: _Client, ident: str, status: str | None, enough: str = "") -> str | None:
        """The status of a volume once Cinder does not work on it, or the patience is over; None: it is gone."""
        until = time.monotonic() + self._patience
        while True:
            if status is None:
                status = _status(client, ident)
            if status is None or status not in _WORKING or status == enough or time.monotonic() > until:
                return status
            time.sleep(_LOOK)
            status = None

    def _user(self, trust: str, doing: str) -> _Client:
        """In the name of whose trust it is, and in no other: what is got is to be that user's to have."""
        client = self._client(trust)
        if client is None:
            raise ServiceRefused(
                "Keystone", doing, "its owner lost a role or is gone, and cannot be acted for any more"
            )
        return client

    def _cleaner(self, trust: str) -> _Client:
        """The same, or in Higgins' own name where that trust is over: what is left of it is to go."""
        client = self._client(trust)
        if client is None:
            LOG.warning("Trust %s is over; what is left of it is tried in Higgins' own name.", trust)
            return _Client(self._sessions.own(SERVICE_TYPE), everywhere=True)
        return client

    def _client(self, trust: str) -> _Client | None:
        """None where the trust is over. Raises ServiceUnavailable."""
        client = self._clients.get(trust)
        if client is None:
            if len(self._clients) >= _MOST_KEPT:
                self._clients.clear()
            client = self._clients[trust] = _Client(self._sessions.trusting(SERVICE_TYPE, trust))
        try:
            client.api.get_token()
        except (failures.Unauthorized, failures.Forbidden, failures.NotFound):
            self._sessions.require_own()
            return None
        except failures.ClientException as error:
            raise ServiceUnavailable("Keystone", "nobody can be acted for at Cinder") from error
        return client


async def _asked(doing: str, work: Callable[[], T], threads: Executor | None = None) -> T:
    """What ``work`` gives, in one of these threads; Cinder's failures as ours."""
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except HigginsError:
        raise
    except failures.HttpError as error:
        raise refusal(error, doing) from error
    except failures.EndpointNotFound as error:
        raise NotInCatalogue(SERVICE_TYPE) from error
    except failures.ClientException as error:
        raise ServiceUnavailable("Cinder", doing) from error


def refusal(error: failures.HttpError, doing: str) -> HigginsError:
    """Pure: what an answer of Cinder's that is no success means. 500 is Cinder's, and may pass."""
    status = int(error.http_status or 0)
    says = f"{_message(error)} ({status})"
    match status:
        case 401:
            return Unauthorized("Cinder does not accept the token; it expired or was revoked meanwhile.")
        case 429 | 502 | 503 | 504:
            return ServiceUnavailable("Cinder", doing)
        case 403 | 404 | 413:
            return ServiceRefused("Cinder", doing, says)
        case _:
            return ServiceRefused("Cinder", doing, says, final=False)


def _message(error: failures.HttpError) -> str:
    """Cinder's own sentence, which is in the body under the name of the fault."""
    text = str(error.details or error.message or "it gives no reason")
    return text.split("\n", 1)[0].split(" (HTTP ", 1)[0][:300].strip().rstrip(".")


def stored(entry: dict[str, Any]) -> StoredVolume:
    """From a volume of Cinder's API; pure."""
    return StoredVolume(
        id=str(entry["id"]),
        name=str(entry.get("name") or entry["id"]),
        size=int(entry["size"]),
        status=str(entry["status"]),
        multiattach=bool(entry.get("multiattach")),
    )


def _find(client: _Client, ident: str) -> StoredVolume | None:
    if _is_uuid(ident):
        try:
            return stored(client.api.get(f"/volumes/{ident}").json()["volume"])
        except failures.NotFound:
            pass  # it may be a name all the same
    listed = client.listed("volumes", "/volumes/detail", name=ident, limit="2")
    same = [one for one in listed if one["name"] == ident]
    if len(same) > 1:
        raise Conflict(f"Several volumes have the name {ident}; use the id.")
    return stored(same[0]) if same else None


def _status(client: _Client, ident: str) -> str | None:
    try:
        return str(client.api.get(f"/volumes/{ident}").json()["volume"]["status"])
    except failures.NotFound:
        return None


def _made_for(client: _Client, use: str) -> list[dict[str, Any]]:
    listed = client.listed("volumes", "/volumes/detail", metadata=f"{{'{USE}': '{use}'}}")
    return [one for one in listed if one["metadata"].get(USE) == use and one["status"] != "deleting"]


def _attachments(client: _Client, ident: str, use: str) -> list[dict[str, Any]]:
    try:
        listed = client.listed("attachments", "/attachments", volume_id=ident, instance_id=use)
    except failures.NotFound:
        return []
    return [one for one in listed if one["volume_id"] == ident and one["instance"] == use]


def _delete(client: _Client, path: str) -> None:
    """What is gone already is no error."""
    try:
        client.api.delete(path)
    except failures.NotFound:
        return


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
