"""The tables. Times are UTC without zone; JSON lives in text columns that msgspec reads and writes.

A *workload* is what is placed, wired and reconciled: a sandbox. A *container* row is a member of one; a plain container
is a workload of the same uuid with one member. Desired state (``goal``, ``incarnation``, ``orders``, ``spec``) and
observed state (``status``, ``known``) stand side by side.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
)
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT
from sqlalchemy.types import TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(Integer(), "sqlite")
#: To the microsecond everywhere.
Moment = DateTime().with_variant(DATETIME(fsp=6), "mariadb")
#: Up to 16 MiB everywhere.
LongText = Text().with_variant(MEDIUMTEXT(), "mariadb")


def Words(length: int) -> TypeEngine[str]:
    """Text of so many characters, compared and sorted by code point on every database.

    On PostgreSQL that is the collation "C", which an upgrade of the system's libc cannot make indexes disagree with; on
    MariaDB the tables' own, below; SQLite knows no other.
    """
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def _times() -> tuple[Column[object], Column[object]]:
    return Column("created_at", Moment, nullable=False), Column("updated_at", Moment, nullable=True)


def kept() -> tuple[Column[Any], ...]:
    """The columns of a table whose rows another service has to do something for; see ``control.keeper``."""
    return (
        Column("due_at", Moment, index=True),  # when to look at it; null where nothing is to be done
        Column("asks", Integer, nullable=False, default=0),  # raised with whatever is asked anew
        Column("tries", Integer, nullable=False, default=0),  # that failed, since it was asked
        Column("trouble", LongText),  # why the last one did
        Column("holder", Words(32)),  # who works on it now
        Column("held_until", Moment),
    )


host = Table(
    "host",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("name", Words(255), nullable=False, unique=True),
    Column("zone", Words(255), nullable=False),
    Column("info", LongText, nullable=False),
    Column("cpus", Double, nullable=False),
    Column("memory", Integer, nullable=False),  # MiB
    Column("disk", Integer, nullable=False),  # GiB
    Column("cpu_used", Double, nullable=False, default=0),
    Column("memory_used", Integer, nullable=False, default=0),
    Column("disk_used", Integer, nullable=False, default=0),
    # Of ``cpus``, those that are given away whole, and how many are.
    Column("cores", Integer, nullable=False, default=0),
    Column("cores_used", Integer, nullable=False, default=0),
    # What Placement knows to be held of it, where it is shared with others; claims fit into that.
    Column("held_cpu", Integer),
    Column("held_memory", Integer),
    Column("held_disk", Integer),
    # The project whose workloads alone are here, "" for those of several; null for an empty host.
    Column("tenant", Words(255)),
    Column("containers", Integer, nullable=False, default=0),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("disabled_reason", Words(255)),
    Column("draining", Boolean, nullable=False, default=False),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("report_count", BigInteger, nullable=False, default=0),
    Column("seen_at", Moment, nullable=False),
    # By which rules its agent was told last that it takes itself for lost; see ``fencing``. Null: by an older version.
    Column("told_lease", Double),
    Column("told_evacuate", Words(32)),
    Column("address", Words(255)),  # where it serves streams; null for one in the process of the control plane
    Column("tls_name", Words(36)),  # what it is called by there; another one with each join
    Column("revoked_at", Moment),
    *_times(),
)

#: Higgins' own certificate authority: one row, made by whoever needs it first and shared by all replicas; two while
#: another takes its place.
authority = Table(
    "authority",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("certificate", LongText, nullable=False),  # PEM
    Column("key", LongText, nullable=False),  # PEM, encrypted
    Column("created_at", Moment, nullable=False),
)

#: The certificates that hosts may use. One that is not here, or revoked, or over, is refused.
certificate = Table(
    "certificate",
    metadata,
    Column("serial", Words(40), primary_key=True),  # hexadecimal, lower case
    Column("host_id", ForeignKey("host.id"), nullable=False, index=True),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("revoked_at", Moment),
    Column("authority_id", Integer),  # which one signed it; null for one from before there could be several
    Column("shown_at", Moment),  # when the host showed it first
)

join_token = Table(
    "join_token",
    metadata,
    Column("token_hash", Words(64), primary_key=True),
    Column("expires_at", Moment, nullable=False),
)

#: What a project uses, kept in step with its containers in the same transaction, so that a quota holds under any
#: number of concurrent creates on any database: the row is locked by the update that adds to it.
project = Table(
    "project",
    metadata,
    Column("id", Words(255), primary_key=True),
    Column("containers", Integer, nullable=False, default=0),
    Column("cpu", Double, nullable=False, default=0),
    Column("memory", Integer, nullable=False, default=0),
    Column("disk", Integer, nullable=False, default=0),
    # Raised by whoever takes a name where names are unique: two who do so at once are one after the other.
    Column("names", Integer, nullable=False, default=0),
)

workload = Table(
    "workload",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("kind", Words(16), nullable=False),  # container | capsule
    Column("name", Words(255)),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("host_id", ForeignKey("host.id"), index=True),
    # Where it goes once ``host_id`` has let go of it; its place there is claimed already.
    Column("next_host_id", ForeignKey("host.id"), index=True),
    # What its owner groups it by, for affinity and anti-affinity.
    Column("group_name", Words(255)),
    Column("generation", Integer, nullable=False, default=1),
    Column("observed", Integer, nullable=False, default=0),
    Column("deleting", Boolean, nullable=False, default=False),
    # It is to leave a lost host or to be deleted, by a change that its host has not confirmed to have heard. Null: no.
    Column("unheard", Boolean),
    # A port was detached from it that its host may have yet: unheard, or heard once that has confirmed it. Null: no.
    Column("detaching", Words(8)),
    Column("cpu", Double, nullable=False),
    Column("memory", Integer, nullable=False),
    Column("disk", Integer, nullable=False),
    Column("spec", LongText, nullable=False),
    Column("status", Words(16), nullable=False),
    Column("status_reason", LongText),
    *_times(),
    Index(None, "project_id", "kind", "name"),
    Index(None, "project_id", "group_name"),
)

#: A core of a host that a workload has to itself.
core = Table(
    "core",
    metadata,
    Column("host_id", ForeignKey("host.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("workload_id", ForeignKey("workload.id"), nullable=False, index=True),
)

container = Table(
    "container",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("workload_id", ForeignKey("workload.id"), nullable=False, index=True),
    Column("role", Words(8), nullable=False),  # plain | main | init
    Column("position", Integer, nullable=False, default=0),
    Column("name", Words(255), nullable=False),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("host", Words(255), index=True),
    Column("image", Words(255), nullable=False),
    Column("status", Words(16), nullable=False),
    Column("status_reason", LongText),
    Column("task_state", Words(32)),
    Column("memory", Integer, nullable=False),
    Column("auto_remove", Boolean, nullable=False, default=False),
    Column("goal", Words(16), nullable=False),
    Column("incarnation", Integer, nullable=False, default=1),
    Column("orders", LongText),
    Column("spec", LongText, nullable=False),
    Column("known", LongText),
    Column("addresses", LongText, nullable=False, default="{}"),
    *_times(),
    # For what is looked up by its name. With more columns than the lists' own, or SQLite takes one of those for it.
    Index(None, "name", "project_id", "role"),
    # For lists of a project, and of all projects, in the order of their making.
    Index(None, "project_id", "role", "id"),
    Index(None, "role", "id"),
    # For lists of a project that are sorted or filtered by something else, and go on after a marker.
    Index(None, "project_id", "role", "name", "id"),
    Index(None, "project_id", "role", "image", "id"),
    Index(None, "project_id", "role", "status", "id"),
    Index(None, "project_id", "role", "created_at", "id"),
    Index(None, "role", "status"),
)

network = Table(
    "network",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("name", Words(255), nullable=False),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("cidr", Words(64), nullable=False, unique=True),
    Column("is_default", Boolean, nullable=False, default=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
)

port = Table(
    "port",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("workload_id", ForeignKey("workload.id"), index=True),  # null: it is detached
    # Of which workload it was, while that one's host may have it yet: the address is no other's until then.
    Column("leaving_id", ForeignKey("workload.id", ondelete="CASCADE"), index=True),
    Column("network_id", ForeignKey("network.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("address", Words(64), nullable=False),
    Column("mac", Words(32), nullable=False),
    UniqueConstraint("network_id", "address"),
    Index(None, "network_id", "id"),
)

#: A port of Neutron that a workload has, is to have, or had; the keeper of this table brings it there.
cloud_port = Table(
    "cloud_port",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),  # by which it is found again in Neutron
    Column("wire", Words(36), nullable=False, unique=True),  # as its host knows it; another one is plugged anew
    Column("workload_id", ForeignKey("workload.id"), index=True),  # null: its workload is gone, or it has none yet
    Column("pool_id", BigInteger, index=True),  # the pool that it is in, until a workload takes it
    Column("device", Words(36), nullable=False),  # the workload's uuid; in a pool its own
    Column("project_id", Words(255), nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", Words(16), nullable=False),  # see ``cloud_ports``
    Column("late", Boolean, nullable=False),  # attached to what was there already
    Column("given", Boolean, nullable=False),  # the tenant's own, kept when the container goes
    Column("network", Words(36), nullable=False, index=True),
    Column("port", Words(36), unique=True),  # Neutron's; null until it is made
    Column("asked", LongText, nullable=False),
    Column("told", LongText),  # what a host has to know of it
    Column("reason", LongText),  # why it was refused
    *kept(),
)

#: Ports of Neutron made ahead for one project, network, security groups and host; its keeper has it be the right size.
port_pool = Table(
    "port_pool",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host_id", ForeignKey("host.id"), nullable=False),
    Column("key", Words(64), nullable=False),  # a hash of what its ports have in common
    Column("project_id", Words(255), nullable=False, index=True),
    Column("network", Words(36), nullable=False, index=True),
    Column("asked", LongText, nullable=False),
    Column("used_at", Moment, nullable=False),  # when one was wanted last
    Column("rests_until", Moment),  # the project can have no more ports
    *kept(),
    UniqueConstraint("host_id", "key"),
)

security_group = Table(
    "security_group",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("name", Words(255), nullable=False),
    Column("project_id", Words(255), nullable=False),
    Column("rules", LongText, nullable=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
)

volume = Table(
    "volume",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("name", Words(255)),
    Column("project_id", Words(255), nullable=False),
    # GiB of its host's disk; 0 for one that lies elsewhere.
    Column("size", Integer, nullable=False, default=0),
    Column("driver", Words(16), nullable=False, default="local", server_default="local"),  # local | cinder
    Column("content", LongText),  # of an injected file, encrypted
    Column("host_id", ForeignKey("host.id")),
    # The workload that it was made for and goes with; null for one that is kept.
    Column("workload_id", ForeignKey("workload.id"), index=True),
    Column("deleting", Boolean, nullable=False, default=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
    Index(None, "host_id", "deleting"),
)

#: The use that one host makes of a volume of Cinder, from the wish for it until nothing is left of it there.
attachment = Table(
    "attachment",
    metadata,
    Column("id", Id, primary_key=True),
    Column("volume_id", ForeignKey("volume.id"), nullable=False, unique=True),
    Column("cinder_id", Words(36), index=True),  # null until it is made
    Column("name", Words(255), nullable=False),
    Column("size", Integer, nullable=False),  # GiB
    Column("made", Boolean, nullable=False),  # by Higgins, for this
    Column("own", Boolean, nullable=False),  # it is deleted with its container
    Column("multiattach", Boolean, nullable=False),
    Column("trust", Words(64), nullable=False, index=True),  # by which its user is acted for
    Column("state", Words(16), nullable=False),  # wanted | ready | refused | leaving | left | over
    Column("connection", LongText),  # what the host needs to reach it, encrypted
    Column("reason", LongText),  # why it was refused
    *kept(),
)

#: What is held of a host at Placement, and to be held. The host's is null once that is gone.
share = Table(
    "share",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host_id", ForeignKey("host.id"), unique=True),
    Column("uuid", Words(36), nullable=False),
    Column("name", Words(255), nullable=False),
    # To be held beyond what is claimed: somebody waits for it.
    Column("extra_cpu", Integer, nullable=False, default=0),
    Column("extra_memory", Integer, nullable=False, default=0),
    Column("extra_disk", Integer, nullable=False, default=0),
    Column("refused_until", Moment),  # when Placement may be asked for more again
    *kept(),
)

action = Table(
    "action",
    metadata,
    Column("id", Id, primary_key=True),
    Column("container_uuid", Words(36), nullable=False),
    Column("request_id", Words(64), nullable=False),
    Column("action", Words(64), nullable=False),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("generation", Integer, nullable=False, default=0),
    Column("start_time", Moment, nullable=False),
    Column("finish_time", Moment),
    Column("result", Words(16)),
    Column("message", LongText),
    # Of what a process of the control plane does itself: when it was last at it. Null for what hosts do.
    Column("alive_at", Moment, index=True),
    Index(None, "container_uuid", "request_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("project_id", Words(255), nullable=False),
    Column("container_uuid", Words(36), nullable=False),
    Column("name", Words(255), nullable=False),
    Column("status", Words(16), nullable=False),
    Column("status_reason", LongText),
    Column("at", Moment, nullable=False, index=True),
    Index(None, "project_id", "id"),
    sqlite_autoincrement=True,
)

quota = Table(
    "quota",
    metadata,
    Column("project_id", Words(255), primary_key=True),
    Column("resource", Words(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

quota_class = Table(
    "quota_class",
    metadata,
    Column("class_name", Words(255), primary_key=True),
    Column("resource", Words(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

registry = Table(
    "registry",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("name", Words(255)),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("domain", Words(255), nullable=False),
    Column("username", Words(255)),
    Column("password", LongText),  # encrypted
    *_times(),
    Index(None, "project_id", "name"),
)

image = Table(
    "image",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", Words(36), nullable=False, unique=True),
    Column("image_id", Words(255)),
    Column("repo", Words(255), nullable=False),
    Column("tag", Words(255), nullable=False),
    Column("size", Words(32)),
    Column("project_id", Words(255), nullable=False),
    Column("host", Words(255), nullable=False),
    # What its engine calls it: ``repo:tag``, or for one made by commit a name that is its project's alone.
    Column("reference", Words(512), nullable=False),
    # Of one from the image service: which, and by whom it was pulled.
    Column("found", LongText),
    Column("user_id", Words(255)),
    *_times(),
    UniqueConstraint("host", "reference"),
    Index(None, "repo", "tag"),
)

#: The trust by which Higgins reads images in a user's name, when the token that they were asked for with is over.
image_trust = Table(
    "image_trust",
    metadata,
    Column("project_id", Words(255), primary_key=True),
    Column("user_id", Words(255), primary_key=True),
    Column("trust", Words(64), nullable=False),
    Column("created_at", Moment, nullable=False),
)

#: An image that is being made of a container, in the image service, and what is on the host for its sake.
snapshot = Table(
    "snapshot",
    metadata,
    Column("id", Id, primary_key=True),
    Column("image", Words(36), nullable=False, unique=True),
    Column("project_id", Words(255), nullable=False),
    Column("user_id", Words(255), nullable=False),
    Column("host", Words(255)),
    Column("made", Boolean, nullable=False),  # the image is whole, and stays
    *kept(),
)

console = Table(
    "console",
    metadata,
    Column("token_hash", Words(64), primary_key=True),
    Column("container_uuid", Words(36), nullable=False),
    Column("kind", Words(8), nullable=False),  # attach | exec
    Column("exec_id", Words(64), index=True),
    Column("command", LongText),
    Column("expires_at", Moment, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project_id", Words(255), primary_key=True),
    Column("key", Words(255), primary_key=True),
    Column("body_hash", Words(64), nullable=False),
    Column("uuid", Words(36), nullable=False),
    Column("created_at", Moment, nullable=False),
)

#: One row: the oldest revision whose version gets by with the tables as they are; see ``migrate``.
schema_floor = Table("schema_floor", metadata, Column("revision", Words(32), primary_key=True))

for _table in metadata.tables.values():
    # By code point, and without MariaDB's padding, which takes "web" and "web " for the same.
    _table.dialect_kwargs.update(
        mariadb_engine="InnoDB", mariadb_charset="utf8mb4", mariadb_collate="utf8mb4_nopad_bin"
    )


@cache
def into(table: Table) -> Insert:
    """To insert a row, whose values are arguments: the same statement each time, which need not be looked through."""
    return insert(table)
