"""What a workload needs of its host."""

import math
from functools import cache
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Connection

from higgins.control.images import committed_name, split
from higgins.model.container import ContainerSpec
from higgins.model.errors import Invalid, NotFound
from higgins.store.bulk import encoded, rows
from higgins.store.schema import container, core, host, image, workload

POLICIES = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")


_HAVE_IMAGE = (
    sa.select(host.c.id)
    .join(image, image.c.host == host.c.name)
    .where(
        image.c.repo == sa.bindparam("repo"),
        image.c.tag == sa.bindparam("tag"),
        image.c.reference.in_(sa.bindparam("names", expanding=True)),
    )
)


class Having(Struct, frozen=True):
    """A host has an image: a row of ``HAVING``. ``reference`` is what its engine calls it."""

    reference: str
    id: int


def _having() -> sa.Select[tuple[str, int]]:
    asked = rows({"repo": image.c.repo.type, "tag": image.c.tag.type}, "images").c
    these = (image.c.repo == asked.repo) & (image.c.tag == asked.tag)
    return sa.select(image.c.reference, host.c.id).join(image, image.c.host == host.c.name).where(these)


#: Who has the images in the argument ``images``, by repository and tag; on PostgreSQL.
HAVING = _having()


class Company(Struct, frozen=True, kw_only=True):
    """Whom a workload shall be beside, or not, as its hints say. ``same`` and ``different`` are uuids."""

    same: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    group: str | None = None
    policy: str = ""


class Need(Struct, frozen=True, kw_only=True):
    """What a workload needs of its host: cores, MiB, GiB, and whatever it insists on. Hosts are told by number.

    ``cores`` of its ``cpu`` it has to itself, whole; ``taken`` are the cores that others have to themselves, by host.
    ``beside`` are the hosts it must be on one of (None: on any), ``apart`` those that it must not be on;
    ``companions`` counts the members of its group by host. ``image_hosts`` have its image. ``attaches``: volumes of
    Cinder are attached to it.
    """

    cpu: float
    memory: int
    disk: int
    project: str = ""
    runtimes: frozenset[str] = frozenset()
    zone: str | None = None
    host: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    volume_hosts: frozenset[int] = frozenset()
    cores: int = 0
    taken: dict[int, frozenset[int]] = field(default_factory=dict)
    beside: frozenset[int] | None = None
    apart: frozenset[int] = frozenset()
    group: str | None = None
    policy: str = ""
    companions: dict[int, int] = field(default_factory=dict)
    image_hosts: frozenset[int] = frozenset()
    attaches: bool = False


def company_of(hints: dict[str, str]) -> Company:
    """Pure: ``same_host`` and ``different_host`` (uuids, with commas between), ``group`` and ``policy``.

    Raises Invalid for a policy that there is not, or one without a group. A group without one is only counted.
    """
    group, policy = hints.get("group") or None, hints.get("policy") or ""
    if policy and policy not in POLICIES:
        raise Invalid(f"hints: policy {policy} is not one of {', '.join(POLICIES)}.")
    if policy and group is None:
        raise Invalid("hints: a policy needs a group.")
    if group is not None and len(group) > 255:
        raise Invalid("hints: the group's name is longer than 255 characters.")
    return Company(
        same=_uuids(hints.get("same_host")),
        different=_uuids(hints.get("different_host")),
        group=group,
        policy=policy,
    )


def _uuids(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def cores_of(specs: list[ContainerSpec]) -> int:
    """Pure: the cores that these containers have to themselves together. Raises Invalid for a part of a core."""
    total = 0
    for spec in specs:
        if spec.cpu_policy == "dedicated":
            if spec.cpu < 1 or not math.isclose(spec.cpu, round(spec.cpu)):
                raise Invalid(f"cpu: dedicated CPUs are whole ones, and {spec.cpu:g} is not.")
            total += round(spec.cpu)
    return total


def need_of(
    conn: Connection,
    project_id: str,
    specs: list[ContainerSpec],
    *,
    cpu: float,
    memory: int,
    disk: int,
    volumes: frozenset[int] = frozenset(),
    inits: int = 0,
    attaches: bool = False,
    workload_id: int | None = None,
) -> Need:
    """What a workload with these members needs; the first member speaks for zone, host and hints.

    So many of the first are ``inits``: they run before the others, one by one, and on the same cores.

    For one that is there already (``workload_id``) it does not count as its own company, and those that it named and
    that are gone since do not matter any more; else NotFound is raised for them.
    """
    first = specs[0]
    company = company_of(first.hints)
    cores = max([cores_of(specs[inits:]), *(cores_of([spec]) for spec in specs[:inits])])
    places = _places(conn, project_id, company, strict=workload_id is None)
    return Need(
        cpu=cpu,
        memory=memory,
        disk=disk,
        project=project_id,
        runtimes=frozenset(spec.runtime for spec in specs if spec.runtime),
        zone=first.availability_zone,
        host=first.requested_host,
        labels={key[6:]: value for key, value in first.hints.items() if key.startswith("label:")},
        volume_hosts=volumes,
        cores=cores,
        taken=_taken(conn) if cores else {},
        beside=_beside([places[one] for one in company.same if one in places]),
        apart=frozenset(number for one in company.different for number in places.get(one, ())),
        group=company.group,
        policy=company.policy,
        companions=_companions(conn, project_id, company.group, workload_id),
        image_hosts=_image_hosts(conn, project_id, first.image) if first.found is None else frozenset(),
        attaches=attaches,
    )


def plain_needs(conn: Connection, asked: list[tuple[str, ContainerSpec]], found: list[Having]) -> list[Need]:
    """Of containers by their project and spec, what each needs, as ``need_of`` says it: of such as have no volumes and
    no dedicated cores, and name nobody to be beside or apart from. ``found``: who has their images. Raises Invalid.
    """
    companies = [company_of(spec.hints) for _, spec in asked]
    images = {(project, spec.image): split(spec.image) for project, spec in asked if spec.found is None}
    having: dict[str, set[int]] = {}
    for one in found:
        having.setdefault(one.reference, set()).add(one.id)
    members = _members(
        conn, {(project, one.group) for (project, _), one in zip(asked, companies, strict=True) if one.group}
    )
    return [
        Need(
            cpu=spec.cpu,
            memory=spec.memory,
            disk=spec.disk,
            project=project,
            runtimes=frozenset((spec.runtime,)) if spec.runtime else frozenset(),
            zone=spec.availability_zone,
            labels={key[6:]: value for key, value in spec.hints.items() if key.startswith("label:")},
            group=one.group,
            policy=one.policy,
            companions=members[project, one.group] if one.group else {},
            image_hosts=_hosts(having, project, *images[project, spec.image]) if having and not spec.found else _NONE,
        )
        for (project, spec), one in zip(asked, companies, strict=True)
    ]


_NONE: frozenset[int] = frozenset()


def _members(conn: Connection, groups: set[tuple[str, str]]) -> dict[tuple[str, str], dict[int, int]]:
    """Of each group, by its project and name, how many members each host has; see ``_companions``. On PostgreSQL."""
    members: dict[tuple[str, str], dict[int, int]] = {group: {} for group in groups}
    asked = [{"project_id": project, "group_name": name} for project, name in groups]
    # All at once: one by one takes longer.
    for project, name, here, there, count in conn.execute(_members_of(), encoded(asked)).all() if asked else ():
        counts = members[project, name]
        for number in (here, there):
            if number is not None:
                counts[number] = counts.get(number, 0) + count
    return members


@cache
def _members_of() -> sa.Select[Any]:
    t = workload.c
    given = rows({name: t[name].type for name in ("project_id", "group_name")}).c
    mine = (t.project_id == given.project_id) & (t.group_name == given.group_name)
    columns = (t.project_id, t.group_name, t.host_id, t.next_host_id)
    return sa.select(*columns, sa.func.count()).where(mine).group_by(*columns)


def _hosts(having: dict[str, set[int]], project_id: str, repo: str, tag: str) -> frozenset[int]:
    names = (f"{repo}:{tag}", committed_name(project_id, repo, tag))
    return frozenset(number for name in names for number in having.get(name, ()))


def _beside(places: list[tuple[int, ...]]) -> frozenset[int] | None:
    """Where all of them are; where a workload that moves is going to."""
    if not places:
        return None
    return frozenset.intersection(*[frozenset(numbers[-1:]) for numbers in places])


def _places(conn: Connection, project_id: str, company: Company, *, strict: bool) -> dict[str, tuple[int, ...]]:
    """Of each container or capsule that is named, the hosts where it is, and then where it goes."""
    wanted = [*company.same, *company.different]
    if not wanted:
        return {}
    rows = conn.execute(
        sa.select(container.c.uuid, workload.c.uuid.label("workload"), workload.c.host_id, workload.c.next_host_id)
        .join(workload, workload.c.id == container.c.workload_id)
        .where(
            workload.c.project_id == project_id,
            sa.or_(container.c.uuid.in_(wanted), workload.c.uuid.in_(wanted)),
        )
    ).all()
    found: dict[str, tuple[int, ...]] = {}
    for row in rows:
        numbers = tuple(number for number in (row.host_id, row.next_host_id) if number is not None)
        found[row.uuid] = found[row.workload] = numbers
    if strict:
        for one in wanted:
            if one not in found:
                raise NotFound("container", one)
    return found


def _companions(conn: Connection, project_id: str, group: str | None, workload_id: int | None) -> dict[int, int]:
    """How many members of the group each host has; one that moves counts where it goes and where it is."""
    if group is None:
        return {}
    counts: dict[int, int] = {}
    mine = [workload.c.project_id == project_id, workload.c.group_name == group, workload.c.id != (workload_id or 0)]
    for column in (workload.c.host_id, workload.c.next_host_id):
        query = sa.select(column, sa.func.count()).where(*mine, column.is_not(None)).group_by(column)
        for number, count in conn.execute(query):
            counts[number] = counts.get(number, 0) + count
    return counts


def _taken(conn: Connection) -> dict[int, frozenset[int]]:
    taken: dict[int, set[int]] = {}
    for host_id, number in conn.execute(sa.select(core.c.host_id, core.c.number)):
        taken.setdefault(host_id, set()).add(number)
    return {host_id: frozenset(numbers) for host_id, numbers in taken.items()}


def _image_hosts(conn: Connection, project_id: str, name: str) -> frozenset[int]:
    """The hosts that an administrator had the image pulled to, and those where the project made it by commit."""
    repo, tag = split(name)
    names = [f"{repo}:{tag}", committed_name(project_id, repo, tag)]
    return frozenset(conn.execute(_HAVE_IMAGE, {"repo": repo, "tag": tag, "names": names}).scalars())
