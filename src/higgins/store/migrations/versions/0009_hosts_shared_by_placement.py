"""What is held of hosts at Placement."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb")


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    for name in ("held_cpu", "held_memory", "held_disk"):
        op.add_column("host", sa.Column(name, sa.Integer(), nullable=True))
    op.create_table(
        "share",
        sa.Column("id", _ID, nullable=False),
        sa.Column("host_id", _ID, nullable=True),
        sa.Column("uuid", _words(36), nullable=False),
        sa.Column("name", _words(255), nullable=False),
        sa.Column("extra_cpu", sa.Integer(), nullable=False),
        sa.Column("extra_memory", sa.Integer(), nullable=False),
        sa.Column("extra_disk", sa.Integer(), nullable=False),
        sa.Column("refused_until", _MOMENT, nullable=True),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", _TEXT, nullable=True),
        sa.Column("holder", _words(32), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_share_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_share")),
        sa.UniqueConstraint("host_id", name=op.f("uq_share_host_id")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
    op.create_index(op.f("ix_share_due_at"), "share", ["due_at"], unique=False)
