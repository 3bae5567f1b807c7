"""Volumes of Cinder: what hosts make of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb")


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("volume", sa.Column("driver", _words(16), nullable=False, server_default="local"))
    op.create_table(
        "attachment",
        sa.Column("id", _ID, nullable=False),
        sa.Column("volume_id", _ID, nullable=False),
        sa.Column("cinder_id", _words(36), nullable=True),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("made", sa.Boolean(), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("multiattach", sa.Boolean(), nullable=False),
        sa.Column("trust", _words(64), nullable=False),
        sa.Column("state", _words(16), nullable=False),
        sa.Column("connection", _TEXT, nullable=True),
        sa.Column("reason", _TEXT, nullable=True),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", _TEXT, nullable=True),
        sa.Column("holder", _words(32), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["volume_id"], ["volume.id"], name=op.f("fk_attachment_volume_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attachment")),
        sa.UniqueConstraint("volume_id", name=op.f("uq_attachment_volume_id")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
    for column in ("cinder_id", "trust", "due_at"):
        op.create_index(op.f(f"ix_attachment_{column}"), "attachment", [column], unique=False)
