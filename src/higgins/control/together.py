"""Creates that arrive together are made by one transaction, on PostgreSQL.

Their statements are those of one create, each for all of them: so a hundred cost the database one commit, and the hosts
are looked at once. What needs more than most do, what is refused, and what finds no host in such a transaction is made
alone afterwards (see ``creating``), where each has its own errors: nobody fails for another. On the other databases all
are made alone; SQLite commits those that arrive together at once anyway.
"""

import uuid as uuids
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from higgins.control import creating, images, quotas, recording, wiring
from higgins.control.cloud import Actor, Cloud
from higgins.control.creating import Draft
from higgins.control.images import split
from higgins.control.placement.claims import claimed, share_of, shares_taken
from higgins.control.placement.fleet import Facts, read_again
from higgins.control.placement.needs import HAVING, Having, Need, company_of, plain_needs
from higgins.control.placement.series import Series
from higgins.control.rows import addresses_of, to_json
from higgins.model.container import ContainerSpec
from higgins.model.errors import HigginsError
from higgins.model.resources import Container
from higgins.store.bulk import at_once, encoded, insert_from, new_rows
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
    made: Container | None = None

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


class _Seen(Struct):
    """The answers to ``_LOOK``."""

    limits: list[quotas.Limit]
    images: list[Having]
    nets: list[wiring.Net]


_seen = msgspec.json.Decoder(_Seen)
_LOOK = at_once(limits=quotas.LIMITS, images=HAVING, nets=wiring.DEFAULTS)


def _make(conn: Connection, cloud: Cloud, asks: list[Ask]) -> _Made:
    result = _Made([None] * len(asks))
    held = quotas.hold_all(conn, [ask.actor.project_id for ask in asks])
    asked = _unrefused(conn, cloud, asks)
    if not asked:
        return result
    counts = Counter(ask.actor.project_id for _, ask, _ in asked)
    seen = _look(conn, counts, {split(spec.image) for _, _, spec in asked})
    accounts = quotas.accounts(cloud, held, seen.limits)
    making = [one for one in _begun(conn, asked, seen.images) if one.project in accounts]
    nets = {net.project_id: net for net in seen.nets}
    addresses = wiring.addresses_for(conn, seen.nets, counts)
    making = [one for one in making if _wired(one, nets, addresses) and accounts[one.project].affords(one.amounts)]
    if not making:
        return result
    fleet = cloud.fleet.get(conn, cloud.settings.placement_age)
    series = Series(fleet, cloud.settings, cloud.now(), cloud.fleet.rank(fleet.facts))
    placed = _placed(conn, cloud, series, making)
    for one in placed:
        result.containers[one.number] = one.made
    _touched(conn, cloud, {int(fleet.facts.ids[one.place]) for one in placed}, {one.net.id for one in placed})
    if cloud.settings.placement_age and series.closed:
        read_again(conn, series.fleet, series.closed)
    result.series = series
    result.places = tuple({*(one.place for one in placed), *series.closed})
    return result


def _unrefused(conn: Connection, cloud: Cloud, asks: list[Ask]) -> list[tuple[int, Ask, ContainerSpec]]:
    """Those that nothing speaks against: not what was asked before, here or ever, and not what is refused."""
    known = _known_keys(conn, asks)
    result = []
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
        result.append((number, ask, spec))
    return result


def _look(conn: Connection, counts: Mapping[str, int], names: set[tuple[str, str]]) -> _Seen:
    """What has to be known of projects, of which so many are made, and of images, told by repository and tag."""
    arguments = {"projects": sorted(counts), "many": wiring.looked_at(max(counts.values()))}
    asked = encoded(({"repo": repo, "tag": tag} for repo, tag in sorted(names)), "images")
    return _seen.decode(conn.execute(_LOOK, arguments | asked).scalar_one())


def _begun(conn: Connection, asked: list[tuple[int, Ask, ContainerSpec]], found: list[Having]) -> list[_Making]:
    needs = plain_needs(conn, [(ask.actor.project_id, spec) for _, ask, spec in asked], found)
    return [
        _Making(
            number=number, ask=ask, spec=spec, need=need, uuid=str(uuids.uuid4()),
            name=ask.draft.name or creating.generated_name(),
        )
        for (number, ask, spec), need in zip(asked, needs, strict=True)
    ]  # fmt: skip


def _known_keys(conn: Connection, asks: list[Ask]) -> set[tuple[str, str]]:
    keys = [(ask.actor.project_id, ask.key) for ask in asks if ask.key is not None]
    if not keys:
        return set()
    query = sa.select(idempotency.c.project_id, idempotency.c.key)
    there = sa.tuple_(idempotency.c.project_id, idempotency.c.key).in_(keys)
    return {(row.project_id, row.key) for row in conn.execute(query.where(there))}


def _wired(one: _Making, nets: Mapping[str, wiring.Net], addresses: Mapping[str, Iterator[str]]) -> bool:
    """Whether its project's network has an address for it."""
    if one.project in nets:
        one.net = nets[one.project]
        one.address = next(addresses[one.project], "")
    return bool(one.address)


def _placed(conn: Connection, cloud: Cloud, series: Series, making: list[_Making]) -> list[_Making]:
    """Those for which a host was found and claimed, and that were written down there: their ``place`` is set."""
    left = making
    for _ in range(_ROUNDS):
        by_place: defaultdict[int, list[_Making]] = defaultdict(list)
        for one in left:
            place = series.best(one.need)
            if place is not None:
                series.take(place, one.need)
                by_place[place].append(one)
        written = _written(conn, cloud, series.fleet.facts, by_place) if by_place else set()
        left = []
        for place, those in by_place.items():
            if those[0].uuid in written:
                for one in those:
                    one.place = place
            else:
                series.refuse(place)
                left += those
        if not left:
            break
    return [one for one in making if one.place >= 0]


def _written(conn: Connection, cloud: Cloud, facts: Facts, by_place: dict[int, list[_Making]]) -> set[str]:
    """Claim hosts, and write down what goes to those that could be had: the uuids of these. By one statement."""
    numbers = {place: int(facts.ids[place]) for place in by_place}
    shares = [
        share_of(numbers[place], [one.need for one in those], cloud.settings) for place, those in by_place.items()
    ]
    new: dict[str, list[dict[str, Any]]] = {table.name: [] for table in _COLUMNS}
    going = [(one.number, one, place) for place, those in by_place.items() for one in those]
    for _, one, place in sorted(going, key=itemgetter(0)):  # so that addresses are numbered in the order of the asks
        _add(new, cloud, one, numbers[place], facts.names[place])
    arguments = shares_taken(shares, cloud.settings, cloud.now())
    for table, rows in new.items():
        arguments |= encoded(rows, f"new_{table}")
    return set(conn.execute(_statement(claimed(cloud.settings)), arguments).scalars())


def _add(new: dict[str, list[dict[str, Any]]], cloud: Cloud, one: _Making, host_id: int, host: str) -> None:
    """Add the rows of a container on this host."""
    actor = one.ask.actor
    new["workload"].append(
        creating.workload_row(
            cloud, actor, uuid=one.uuid, kind="container", name=one.name, need=one.need, host_id=host_id, reason="",
            spec=_NO_NETS,
        )
    )  # fmt: skip
    its_port = wiring.port_row(one.net, 0, 0, one.address) | {"container_uuid": one.uuid}
    addresses = addresses_of([SimpleNamespace(**its_port, network_uuid=one.net.uuid)])
    row = creating.member_row(
        actor, 0, uuid=one.uuid, role="plain", position=0, name=one.name, spec=one.spec
    ) | creating.beginning(cloud, host, "", addresses, run=one.ask.run)
    new["port"].append(its_port)
    new["container"].append(row)
    new["action"].append(recording.action_row(cloud, actor, one.uuid, "create", generation=1))
    new["event"].append(
        recording.event_row(
            cloud, project_id=one.project, uuid=one.uuid, name=one.name, status=row["status"], reason=None
        )
    )
    if one.ask.key is not None:
        new["idempotency"].append(creating.key_row(cloud, actor, one.ask.key, one.ask.body_hash, one.uuid))
    one.made = creating.made(actor, row, one.spec, addresses)


#: What is written of a container: of each table the columns that have not their default.
_COLUMNS: dict[sa.Table, tuple[str, ...]] = {
    workload: (
        "uuid", "kind", "name", "project_id", "user_id", "host_id", "group_name", "generation", "observed", "deleting",
        "cpu", "memory", "disk", "spec", "status", "status_reason", "created_at",
    ),
    port: ("uuid", "network_id", "position", "address", "mac"),
    container: (
        "uuid", "role", "position", "name", "project_id", "user_id", "image", "memory", "auto_remove", "incarnation",
        "spec", "host", "status", "status_reason", "task_state", "goal", "addresses", "created_at",
    ),
    action: ("container_uuid", "request_id", "action", "project_id", "user_id", "generation", "start_time"),
    event: ("project_id", "container_uuid", "name", "status", "status_reason", "at"),
    idempotency: ("project_id", "key", "body_hash", "uuid", "created_at"),
}  # fmt: skip
#: Whose container a row is of.
_OF = {port: "container_uuid", action: "container_uuid", event: "container_uuid"}


@lru_cache(maxsize=8)
def _statement(claimed: sa.CTE) -> sa.Select[Any]:
    """Claims hosts, charges the projects of what goes to those that could be had, and writes it down; its uuids."""
    given = new_rows(workload, _COLUMNS[workload])
    there = sa.select(given).where(given.c.host_id.in_(sa.select(claimed.c.id))).cte("placed")
    values = {name: there.c[name] for name in _COLUMNS[workload]}
    made = insert_from(workload, there, **values).returning(workload.c.id, workload.c.uuid).cte("made")
    parts = [quotas.charged(there).cte("charged")]
    for table, names in _COLUMNS.items():
        if table is workload:
            continue
        its = _OF.get(table, "uuid")
        rows = new_rows(table, names, **{its: made.c.uuid.type})
        values = {name: rows.c[name] for name in names}
        if "workload_id" in table.c:
            values["workload_id"] = made.c.id
        parts.append(
            insert_from(table, rows.join(made, made.c.uuid == rows.c[its]), **values).cte(f"{table.name}_made")
        )
    return sa.select(made.c.uuid).add_cte(*parts)


def _touched(conn: Connection, cloud: Cloud, hosts: set[int], networks: set[int]) -> None:
    """Agents of hosts are woken; where networks span hosts, also those of the hosts that are told of the new ports."""
    if hosts:
        touch_events(conn)
    for number in hosts:
        touched_host(conn, number)
    if networks and cloud.settings.overlay:
        for number in wiring.hosts_on(conn, networks) - hosts:
            touch_host(conn, number)
