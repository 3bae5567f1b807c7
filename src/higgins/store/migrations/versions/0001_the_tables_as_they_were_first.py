"""The tables as they were first."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb")
_MARIADB: dict[str, Any] = {
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "action",
        sa.Column("id", _ID, nullable=False),
        sa.Column("container_uuid", _words(36), nullable=False),
        sa.Column("request_id", _words(64), nullable=False),
        sa.Column("action", _words(64), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("start_time", _MOMENT, nullable=False),
        sa.Column("finish_time", _MOMENT, nullable=True),
        sa.Column("result", _words(16), nullable=True),
        sa.Column("message", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action")),
        **_MARIADB,
    )
    with op.batch_alter_table("action", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_action_container_uuid_request_id"), ["container_uuid", "request_id"], unique=False
        )

    op.create_table(
        "console",
        sa.Column("token_hash", _words(64), nullable=False),
        sa.Column("container_uuid", _words(36), nullable=False),
        sa.Column("kind", _words(8), nullable=False),
        sa.Column("exec_id", _words(64), nullable=True),
        sa.Column("command", _TEXT, nullable=True),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_console")),
        **_MARIADB,
    )
    with op.batch_alter_table("console", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_console_exec_id"), ["exec_id"], unique=False)

    op.create_table(
        "event",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("container_uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("status_reason", _TEXT, nullable=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
        **_MARIADB,
    )
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_event_project_id_id"), ["project_id", "id"], unique=False)

    op.create_table(
        "host",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("zone", _words(255), nullable=False),
        sa.Column("info", _TEXT, nullable=False),
        sa.Column("cpus", sa.Double(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("disk", sa.Integer(), nullable=False),
        sa.Column("cpu_used", sa.Double(), nullable=False),
        sa.Column("memory_used", sa.Integer(), nullable=False),
        sa.Column("disk_used", sa.Integer(), nullable=False),
        sa.Column("containers", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", _words(255), nullable=True),
        sa.Column("forced_down", sa.Boolean(), nullable=False),
        sa.Column("report_count", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host")),
        sa.UniqueConstraint("name", name=op.f("uq_host_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_host_uuid")),
        **_MARIADB,
    )
    op.create_table(
        "idempotency",
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("key", _words(255), nullable=False),
        sa.Column("body_hash", _words(64), nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_idempotency")),
        **_MARIADB,
    )
    op.create_table(
        "image",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("image_id", _words(255), nullable=True),
        sa.Column("repo", _words(255), nullable=False),
        sa.Column("tag", _words(255), nullable=False),
        sa.Column("size", _words(32), nullable=True),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("host", _words(255), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("host", "repo", "tag", name=op.f("uq_image_host_repo_tag")),
        sa.UniqueConstraint("uuid", name=op.f("uq_image_uuid")),
        **_MARIADB,
    )
    op.create_table(
        "network",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("cidr", _words(64), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_network")),
        sa.UniqueConstraint("cidr", name=op.f("uq_network_cidr")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_network_project_id_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_network_uuid")),
        **_MARIADB,
    )
    op.create_table(
        "project",
        sa.Column("id", _words(255), nullable=False),
        sa.Column("containers", sa.Integer(), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("disk", sa.Integer(), nullable=False),
        sa.Column("names", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        **_MARIADB,
    )
    op.create_table(
        "quota",
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("resource", _words(32), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "resource", name=op.f("pk_quota")),
        **_MARIADB,
    )
    op.create_table(
        "quota_class",
        sa.Column("class_name", _words(255), nullable=False),
        sa.Column("resource", _words(32), nullable=False),
        sa.Column("hard_limit", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("class_name", "resource", name=op.f("pk_quota_class")),
        **_MARIADB,
    )
    op.create_table(
        "registry",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=True),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("domain", _words(255), nullable=False),
        sa.Column("username", _words(255), nullable=True),
        sa.Column("password", _TEXT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry")),
        sa.UniqueConstraint("uuid", name=op.f("uq_registry_uuid")),
        **_MARIADB,
    )
    with op.batch_alter_table("registry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_registry_project_id_name"), ["project_id", "name"], unique=False)

    op.create_table(
        "security_group",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("rules", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_security_group")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_security_group_project_id_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_security_group_uuid")),
        **_MARIADB,
    )
    op.create_table(
        "workload",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("kind", _words(16), nullable=False),
        sa.Column("name", _words(255), nullable=True),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("host_id", _ID, nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("observed", sa.Integer(), nullable=False),
        sa.Column("deleting", sa.Boolean(), nullable=False),
        sa.Column("cpu", sa.Double(), nullable=False),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("disk", sa.Integer(), nullable=False),
        sa.Column("spec", _TEXT, nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("status_reason", _TEXT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_workload_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workload")),
        sa.UniqueConstraint("uuid", name=op.f("uq_workload_uuid")),
        **_MARIADB,
    )
    with op.batch_alter_table("workload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workload_host_id"), ["host_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_workload_project_id_kind_name"), ["project_id", "kind", "name"], unique=False
        )

    op.create_table(
        "container",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("workload_id", _ID, nullable=False),
        sa.Column("role", _words(8), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("host", _words(255), nullable=True),
        sa.Column("image", _words(255), nullable=False),
        sa.Column("status", _words(16), nullable=False),
        sa.Column("status_reason", _TEXT, nullable=True),
        sa.Column("task_state", _words(32), nullable=True),
        sa.Column("memory", sa.Integer(), nullable=False),
        sa.Column("auto_remove", sa.Boolean(), nullable=False),
        sa.Column("goal", _words(16), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("orders", _TEXT, nullable=True),
        sa.Column("spec", _TEXT, nullable=False),
        sa.Column("known", _TEXT, nullable=True),
        sa.Column("addresses", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_container_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_container")),
        sa.UniqueConstraint("uuid", name=op.f("uq_container_uuid")),
        **_MARIADB,
    )
    with op.batch_alter_table("container", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_container_host"), ["host"], unique=False)
        batch_op.create_index(batch_op.f("ix_container_project_id_name"), ["project_id", "name"], unique=False)
        batch_op.create_index(batch_op.f("ix_container_project_id_role_id"), ["project_id", "role", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_container_role_status"), ["role", "status"], unique=False)
        batch_op.create_index(batch_op.f("ix_container_workload_id"), ["workload_id"], unique=False)

    op.create_table(
        "port",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("workload_id", _ID, nullable=False),
        sa.Column("network_id", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("address", _words(64), nullable=False),
        sa.Column("mac", _words(32), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["network.id"], name=op.f("fk_port_network_id")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_port_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_port")),
        sa.UniqueConstraint("network_id", "address", name=op.f("uq_port_network_id_address")),
        sa.UniqueConstraint("uuid", name=op.f("uq_port_uuid")),
        **_MARIADB,
    )
    with op.batch_alter_table("port", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_port_network_id_id"), ["network_id", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_port_workload_id"), ["workload_id"], unique=False)

    op.create_table(
        "volume",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=True),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("content", _TEXT, nullable=True),
        sa.Column("host_id", _ID, nullable=True),
        sa.Column("workload_id", _ID, nullable=True),
        sa.Column("deleting", sa.Boolean(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_volume_host_id")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_volume_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_volume_project_id_name")),
        sa.UniqueConstraint("uuid", name=op.f("uq_volume_uuid")),
        **_MARIADB,
    )
    with op.batch_alter_table("volume", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_volume_workload_id"), ["workload_id"], unique=False)
