"""Ports of Neutron, and what their keeper has to do for them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT
from sqlalchemy.types import TypeEngine

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(MEDIUMTEXT(), "mariadb")
_MARIADB: dict[str, Any] = {
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "cloud_port",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("wire", _words(36), nullable=False),
        sa.Column("workload_id", _ID, nullable=True),
        sa.Column("device", _words(36), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", _words(16), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("given", sa.Boolean(), nullable=False),
        sa.Column("network", _words(36), nullable=False),
        sa.Column("port", _words(36), nullable=True),
        sa.Column("asked", _TEXT, nullable=False),
        sa.Column("told", _TEXT, nullable=True),
        sa.Column("reason", _TEXT, nullable=True),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", _TEXT, nullable=True),
        sa.Column("holder", _words(32), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["workload_id"], ["workload.id"], name=op.f("fk_cloud_port_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cloud_port")),
        sa.UniqueConstraint("uuid", name=op.f("uq_cloud_port_uuid")),
        sa.UniqueConstraint("wire", name=op.f("uq_cloud_port_wire")),
        sa.UniqueConstraint("port", name=op.f("uq_cloud_port_port")),
        **_MARIADB,
    )
    for column in ("workload_id", "network", "due_at"):
        op.create_index(op.f(f"ix_cloud_port_{column}"), "cloud_port", [column], unique=False)
