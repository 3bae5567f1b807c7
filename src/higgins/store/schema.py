"""The tables. Times are UTC without zone; JSON lives in text columns that msgspec reads and writes.

A *workload* is what is placed, wired and reconciled: a sandbox. A *container* row is a member of one; a plain container
is a workload of the same uuid with one member. Desired state (``goal``, ``incarnation``, ``orders``, ``spec``) and
observed state (``status``, ``known``) stand side by side.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(Integer(), "sqlite")
LongText = Text(length=2**24)


def _times() -> tuple[Column[object], Column[object]]:
    return Column("created_at", DateTime, nullable=False), Column("updated_at", DateTime, nullable=True)


host = Table(
    "host",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("zone", String(255), nullable=False),
    Column("info", Text, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory", Integer, nullable=False),  # MiB
    Column("disk", Integer, nullable=False),  # GiB
    Column("cpu_used", Float, nullable=False, default=0),
    Column("memory_used", Integer, nullable=False, default=0),
    Column("disk_used", Integer, nullable=False, default=0),
    Column("containers", Integer, nullable=False, default=0),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("disabled_reason", String(255)),
    Column("forced_down", Boolean, nullable=False, default=False),
    Column("report_count", BigInteger, nullable=False, default=0),
    Column("seen_at", DateTime, nullable=False),
    Column("address", String(255)),  # where it serves streams; null for one in the process of the control plane
    Column("revoked_at", DateTime),
    *_times(),
)

#: Higgins' own certificate authority: one row, made by whoever needs it first and shared by all replicas.
authority = Table(
    "authority",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("certificate", Text, nullable=False),  # PEM
    Column("key", Text, nullable=False),  # PEM, encrypted
    Column("created_at", DateTime, nullable=False),
)

#: The certificates that hosts may use. One that is not here, or revoked, or over, is refused.
certificate = Table(
    "certificate",
    metadata,
    Column("serial", String(40), primary_key=True),  # hexadecimal, lower case
    Column("host_id", ForeignKey("host.id"), nullable=False, index=True),
    Column("expires_at", DateTime, nullable=False, index=True),
    Column("revoked_at", DateTime),
)

join_token = Table(
    "join_token",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("expires_at", DateTime, nullable=False),
)

#: What a project uses, kept in step with its containers in the same transaction, so that a quota holds under any
#: number of concurrent creates on any database: the row is locked by the update that adds to it.
project = Table(
    "project",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("containers", Integer, nullable=False, default=0),
    Column("cpu", Float, nullable=False, default=0),
    Column("memory", Integer, nullable=False, default=0),
    Column("disk", Integer, nullable=False, default=0),
)

workload = Table(
    "workload",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # container | capsule
    Column("name", String(255)),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("host_id", ForeignKey("host.id"), index=True),
    Column("generation", Integer, nullable=False, default=1),
    Column("observed", Integer, nullable=False, default=0),
    Column("deleting", Boolean, nullable=False, default=False),
    Column("cpu", Float, nullable=False),
    Column("memory", Integer, nullable=False),
    Column("disk", Integer, nullable=False),
    Column("spec", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    *_times(),
    Index(None, "project_id", "kind", "name"),
)

container = Table(
    "container",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("workload_id", ForeignKey("workload.id"), nullable=False, index=True),
    Column("role", String(8), nullable=False),  # plain | main | init
    Column("position", Integer, nullable=False, default=0),
    Column("name", String(255), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("host", String(255), index=True),
    Column("image", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    Column("task_state", String(32)),
    Column("memory", Integer, nullable=False),
    Column("auto_remove", Boolean, nullable=False, default=False),
    Column("goal", String(16), nullable=False),
    Column("incarnation", Integer, nullable=False, default=1),
    Column("orders", Text),
    Column("spec", LongText, nullable=False),
    Column("known", Text),
    Column("addresses", Text, nullable=False, default="{}"),
    *_times(),
    Index(None, "project_id", "role", "id"),
    Index(None, "project_id", "name"),
    Index(None, "role", "status"),
)

network = Table(
    "network",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("cidr", String(64), nullable=False, unique=True),
    Column("is_default", Boolean, nullable=False, default=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
)

port = Table(
    "port",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("workload_id", ForeignKey("workload.id"), nullable=False, index=True),
    Column("network_id", ForeignKey("network.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("address", String(64), nullable=False),
    Column("mac", String(32), nullable=False),
    UniqueConstraint("network_id", "address"),
)

security_group = Table(
    "security_group",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("rules", Text, nullable=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
)

volume = Table(
    "volume",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255)),
    Column("project_id", String(255), nullable=False),
    Column("size", Integer, nullable=False, default=0),
    Column("content", LongText),  # of an injected file, encrypted
    Column("host_id", ForeignKey("host.id")),
    # The workload that it was made for and goes with; null for one that is kept.
    Column("workload_id", ForeignKey("workload.id"), index=True),
    Column("deleting", Boolean, nullable=False, default=False),
    *_times(),
    UniqueConstraint("project_id", "name"),
)

action = Table(
    "action",
    metadata,
    Column("id", Id, primary_key=True),
    Column("container_uuid", String(36), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("generation", Integer, nullable=False, default=0),
    Column("start_time", DateTime, nullable=False),
    Column("finish_time", DateTime),
    Column("result", String(16)),
    Column("message", Text),
    Index(None, "container_uuid", "request_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("project_id", String(255), nullable=False),
    Column("container_uuid", String(36), nullable=False),
    Column("name", String(255), nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text),
    Column("at", DateTime, nullable=False),
    Index(None, "project_id", "id"),
    sqlite_autoincrement=True,
)

quota = Table(
    "quota",
    metadata,
    Column("project_id", String(255), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

quota_class = Table(
    "quota_class",
    metadata,
    Column("class_name", String(255), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", Integer, nullable=False),
)

registry = Table(
    "registry",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(255)),
    Column("project_id", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("username", String(255)),
    Column("password", Text),  # encrypted
    *_times(),
    Index(None, "project_id", "name"),
)

image = Table(
    "image",
    metadata,
    Column("id", Id, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("image_id", String(255)),
    Column("repo", String(255), nullable=False),
    Column("tag", String(255), nullable=False),
    Column("size", String(32)),
    Column("project_id", String(255), nullable=False),
    Column("host", String(255), nullable=False),
    *_times(),
    UniqueConstraint("host", "repo", "tag"),
)

console = Table(
    "console",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("container_uuid", String(36), nullable=False),
    Column("kind", String(8), nullable=False),  # attach | exec
    Column("exec_id", String(64), index=True),
    Column("command", Text),
    Column("expires_at", DateTime, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project_id", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("uuid", String(36), nullable=False),
    Column("created_at", DateTime, nullable=False),
)
