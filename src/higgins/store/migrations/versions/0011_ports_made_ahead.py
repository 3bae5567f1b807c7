"""Ports of Neutron that are made ahead."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME, MEDIUMTEXT
from sqlalchemy.types import TypeEngine

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(MEDIUMTEXT(), "mariadb")


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "port_pool",
        sa.Column("id", _ID, nullable=False),
        sa.Column("host_id", _ID, nullable=False),
        sa.Column("key", _words(64), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("network", _words(36), nullable=False),
        sa.Column("asked", _TEXT, nullable=False),
        sa.Column("used_at", _MOMENT, nullable=False),
        sa.Column("rests_until", _MOMENT, nullable=True),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", _TEXT, nullable=True),
        sa.Column("holder", _words(32), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_port_pool_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_port_pool")),
        sa.UniqueConstraint("host_id", "key", name=op.f("uq_port_pool_host_id_key")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
    for column in ("project_id", "network", "due_at"):
        op.create_index(op.f(f"ix_port_pool_{column}"), "port_pool", [column], unique=False)
    op.add_column("cloud_port", sa.Column("pool_id", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_cloud_port_pool_id"), "cloud_port", ["pool_id"], unique=False)
