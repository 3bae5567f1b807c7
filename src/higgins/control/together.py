"""Creates that arrive together are made by one transaction, on PostgreSQL.

Their statements are those of one create, each for all of them: so a hundred cost the database one commit, and the hosts
are looked at once. What needs more than most do, what is refused, and what finds no host in such a transaction is made
alone afterwards (see ``creating``), where each has its own errors: nobody fails for another. On the other databases all
are made alone; SQLite commits those that arrive together at once anyway.
"""

import uuid as uuids
from collections import Counter, defaultdict
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from higgins.control import creating, images, quotas, recording, wiring
from higgins.control.cloud import Actor, Cloud
from higgins.control.creating import Draft
from higgins.control.placement.claims import claim_shares, share_of
from higgins.control.placement.fleet import Fleet, read_again
from higgins.control.placement.needs import Need, company_of, plain_needs
from higgins.control.placement.series import Series
from higgins.control.rows import addresses_of, to_json
from higgins.model.container import ContainerSpec
from higgins.model.errors import HigginsError
from higgins.model.resources import Container
from higgins.store.bulk import insert_all
from higgins.store.database import touch_events, touch_host
from higgins.store.schema import action, container, event, idempotency, port, workload
from higgins.store.transactions import touched_host

#: How often hosts are chosen for those whose hosts another transaction held or had filled.
_ROUNDS = 4
_NO_NETS = to_json(wiring.Wanted())
#: Hints that name other containers.
_NAMING = {"same_host", "different_host"}


class Ask(Struct, frozen=True, kw_only=True):
    """A create as it was asked for."""

    actor: Actor
    draft: Draft
    run: bool
    key: str | None = None
    body_hash: str = ""


class _Making(Struct, kw_only=True):
    """What becomes of an ask.

    ``number`` is its place among those of the transaction, ``net`` the row of its network.
    """

    number: int
    ask: Ask
    spec: ContainerSpec
    uuid: str
    name: str
    need: Need
    net: Any = None
    address: str = ""
    place: int = -1

    @property
    def project(self) -> str:
        return self.ask.actor.project_id

    @property
    def amounts(self) -> dict[str, float]:
        return {"containers": 1, "cpu": self.spec.cpu, "memory": self.spec.memory, "disk": self.spec.disk}


class _Made(Struct):
    """What a transaction did: of each ask the container, or None; and what it made of the hosts that it knew."""

    containers: list[Container | None]
    series: Series | None = None
    places: tuple[int, ...] = ()


async def create(
    cloud: Cloud,
    actor: Actor,
    draft: Draft,
    *,
    run: bool,
    idempotency_key: str | None = None,
    body_hash: str = "",
) -> Container:
    """Make a container, with all that arrive meanwhile. For what it answers and raises see ``creating.create``."""
    if _usual(cloud, draft):
        ask = Ask(actor=actor, draft=draft, run=run, key=idempotency_key, body_hash=body_hash)

        async def serve(asks: list[Ask]) -> list[Container | None]:
            return await _serve(cloud, asks)

        made: Container | None = await cloud.creates.ask(ask, serve)
        if made is not None:
            return made
    return await creating.create(cloud, actor, draft, run=run, idempotency_key=idempotency_key, body_hash=body_hash)


def _usual(cloud: Cloud, draft: Draft) -> bool:
    """Pure: whether it needs nothing but a place on some host, and an address on the project's default network.

    Not where networks are Neutron's, or hosts shared through Placement: those are asked for each create.
    """
    spec = draft.spec
    if cloud.networking is not None or cloud.settings.placement_steps is not None:
        return False
    alone = (
        draft.nets, spec.mounts, spec.security_groups, spec.registry_id, spec.requested_host,
        spec.cpu_policy == "dedicated", _NAMING & spec.hints.keys(), cloud.settings.unique_names,
    )  # fmt: skip
    return cloud.store.engine.dialect.name == "postgresql" and not any(alone)


async def _serve(cloud: Cloud, asks: list[Ask]) -> list[Container | None]:
    """The container of each ask; None for one that is to be made alone. Raises StoreUnavailable, OutcomeUnknown."""
    try:
        made = await cloud.store.write(lambda conn: _make(conn, cloud, asks))
    except (HigginsError, exc.DBAPIError, UnicodeEncodeError) as error:
        if isinstance(error, HigginsError) and error.status >= 500:  # what they all meet: the database is away
            raise
        return [None] * len(asks)  # a value of one of them that no column can hold
    if made.series is not None and cloud.settings.placement_age:
        cloud.fleet.note_all(made.series.before, made.series.fleet, list(made.places))
    return made.containers


def _make(conn: Connection, cloud: Cloud, asks: list[Ask]) -> _Made:
    result = _Made([None] * len(asks))
    accounts = quotas.hold_accounts(conn, cloud, [ask.actor.project_id for ask in asks])
    making = [one for one in _begun(conn, cloud, asks) if one.project in accounts]
    making = [one for one in _wired(conn, making) if accounts[one.project].affords(one.amounts)]
    if not making:
        return result
    fleet = cloud.fleet.get(conn, cloud.settings.placement_age)
    series = Series(fleet, cloud.settings, cloud.now(), cloud.fleet.rank(fleet.facts))
    placed = _placed(conn, cloud, series, making)
    for one in making:
        if one.place < 0:
            accounts[one.project].give_back(one.amounts)
    quotas.charge_accounts(conn, accounts)
    for one, made in zip(placed, _written(conn, cloud, fleet, placed), strict=True):
        result.containers[one.number] = made
    if cloud.settings.placement_age and series.closed:
        read_again(conn, series.fleet, series.closed)
    result.series = series
    result.places = tuple({*(one.place for one in placed), *series.closed})
    return result


def _begun(conn: Connection, cloud: Cloud, asks: list[Ask]) -> list[_Making]:
    """Those that nothing speaks against: not what was asked before, here or ever, and not what is refused."""
    known = _known_keys(conn, asks)
    numbers: list[int] = []
    specs: list[ContainerSpec] = []
    for number, ask in enumerate(asks):
        project = ask.actor.project_id
        if ask.key is not None and (project, ask.key) in known:
            continue
        try:
            images.check_image(ask.draft.spec.image)
            company_of(ask.draft.spec.hints)
            spec = creating.with_class(cloud.settings, project, ask.draft.spec)
        except HigginsError:
            continue
        if ask.key is not None:
            known.add((project, ask.key))
        numbers.append(number)
        specs.append(spec)
    needs = plain_needs(conn, [(asks[n].actor.project_id, spec) for n, spec in zip(numbers, specs, strict=True)])
    return [
        _Making(
            number=number, ask=asks[number], spec=spec, need=need, uuid=str(uuids.uuid4()),
            name=asks[number].draft.name or creating.generated_name(),
        )
        for number, spec, need in zip(numbers, specs, needs, strict=True)
    ]  # fmt: skip


def _wired(conn: Connection, making: list[_Making]) -> list[_Making]:
    """Those for which their project's network has an address."""
    found = wiring.addresses_for(conn, Counter(one.project for one in making)) if making else {}
    for one in making:
        if one.project in found:
            one.net, addresses = found[one.project]
            one.address = next(addresses, "")
    return [one for one in making if one.address]


def _known_keys(conn: Connection, asks: list[Ask]) -> set[tuple[str, str]]:
    keys = [(ask.actor.project_id, ask.key) for ask in asks if ask.key is not None]
    if not keys:
        return set()
    query = sa.select(idempotency.c.project_id, idempotency.c.key)
    there = sa.tuple_(idempotency.c.project_id, idempotency.c.key).in_(keys)
    return {(row.project_id, row.key) for row in conn.execute(query.where(there))}


def _placed(conn: Connection, cloud: Cloud, series: Series, making: list[_Making]) -> list[_Making]:
    """Those for which a host was found and claimed: their ``place`` is set."""
    left = making
    for _ in range(_ROUNDS):
        by_place: defaultdict[int, list[_Making]] = defaultdict(list)
        for one in left:
            place = series.best(one.need)
            if place is not None:
                series.take(place, one.need)
                by_place[place].append(one)
        numbers = {place: int(series.fleet.facts.ids[place]) for place in by_place}
        shares = [
            share_of(numbers[place], [one.need for one in those], cloud.settings) for place, those in by_place.items()
        ]
        claimed = claim_shares(conn, shares, cloud.settings, cloud.now()) if shares else set()
        left = []
        for place, those in by_place.items():
            if numbers[place] in claimed:
                for one in those:
                    one.place = place
            else:
                series.refuse(place)
                left += those
        if not left:
            break
    return [one for one in making if one.place >= 0]


def _written(conn: Connection, cloud: Cloud, fleet: Fleet, placed: list[_Making]) -> list[Container]:
    """Write down what was placed, in the order in which ``creating`` does; the containers."""
    if not placed:
        return []
    ids, names = fleet.facts.ids, fleet.facts.names
    made = insert_all(
        conn,
        workload,
        [
            creating.workload_row(
                cloud, one.ask.actor, uuid=one.uuid, kind="container", name=one.name, need=one.need,
                host_id=int(ids[one.place]), reason="", spec=_NO_NETS,
            )
            for one in placed
        ],
        ("uuid", "id"),
    )  # fmt: skip
    workload_ids: dict[str, int] = {row.uuid: row.id for row in made}
    ports = [wiring.port_row(one.net, workload_ids[one.uuid], 0, one.address) for one in placed]
    insert_all(conn, port, ports)
    rows: list[dict[str, Any]] = []
    containers: list[Container] = []
    for one, its_port in zip(placed, ports, strict=True):
        addresses = addresses_of([SimpleNamespace(**its_port, network_uuid=one.net.uuid)])
        row = creating.member_row(
            one.ask.actor, workload_ids[one.uuid], uuid=one.uuid, role="plain", position=0, name=one.name, spec=one.spec
        ) | creating.beginning(cloud, names[one.place], "", addresses, run=one.ask.run)
        rows.append(row)
        containers.append(creating.made(one.ask.actor, row, one.spec, addresses))
    insert_all(conn, container, rows)
    _recorded(conn, cloud, placed, rows)
    _touched(conn, cloud, {int(ids[one.place]) for one in placed}, {one.net.id for one in placed})
    return containers


def _recorded(conn: Connection, cloud: Cloud, placed: list[_Making], rows: list[dict[str, Any]]) -> None:
    actions = [recording.action_row(cloud, one.ask.actor, one.uuid, "create", generation=1) for one in placed]
    insert_all(conn, action, actions)
    events = [
        recording.event_row(
            cloud, project_id=one.project, uuid=one.uuid, name=one.name, status=row["status"], reason=None
        )
        for one, row in zip(placed, rows, strict=True)
    ]
    insert_all(conn, event, events)
    touch_events(conn)
    keys = [
        creating.key_row(cloud, one.ask.actor, one.ask.key, one.ask.body_hash, one.uuid)
        for one in placed
        if one.ask.key is not None
    ]
    insert_all(conn, idempotency, keys)


def _touched(conn: Connection, cloud: Cloud, hosts: set[int], networks: Iterable[int]) -> None:
    """Their agents are woken; where networks span hosts, also those of the hosts that are told of the new ports."""
    for number in hosts:
        touched_host(conn, number)
    if cloud.settings.overlay:
        for number in wiring.hosts_on(conn, networks) - hosts:
            touch_host(conn, number)
