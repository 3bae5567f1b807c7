"""Where workloads go: whole cores, hosts of one project, groups, and workloads that move to another host."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MARIADB: dict[str, Any] = {
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}

#: Whose workloads a host holds: the one project, or "" for several.
_TENANT = """
UPDATE host SET tenant = (
    SELECT CASE WHEN min(workload.project_id) = max(workload.project_id) THEN min(workload.project_id) ELSE '' END
    FROM workload WHERE workload.host_id = host.id
) WHERE containers > 0
"""


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("host", sa.Column("cores", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("host", sa.Column("cores_used", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("host", sa.Column("tenant", _words(255), nullable=True))
    op.add_column("host", sa.Column("draining", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(_TENANT)
    with op.batch_alter_table("workload") as table:
        table.add_column(sa.Column("next_host_id", _ID, nullable=True))
        table.add_column(sa.Column("group_name", _words(255), nullable=True))
        table.create_foreign_key(op.f("fk_workload_next_host_id"), "host", ["next_host_id"], ["id"])
        table.create_index(op.f("ix_workload_next_host_id"), ["next_host_id"], unique=False)
        table.create_index(op.f("ix_workload_project_id_group_name"), ["project_id", "group_name"], unique=False)
    op.create_table(
        "core",
        sa.Column("host_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("workload_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_core_host_id")),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_core_workload_id")),
        sa.PrimaryKeyConstraint("host_id", "number", name=op.f("pk_core")),
        **_MARIADB,
    )
    op.create_index(op.f("ix_core_workload_id"), "core", ["workload_id"], unique=False)
