"""Images that are being made of containers, so that what comes to nothing is taken away."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb")


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "snapshot",
        sa.Column("id", _ID, nullable=False),
        sa.Column("image", _words(36), nullable=False),
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("host", _words(255), nullable=True),
        sa.Column("made", sa.Boolean(), nullable=False),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("trouble", _TEXT, nullable=True),
        sa.Column("holder", _words(32), nullable=True),
        sa.Column("held_until", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshot")),
        sa.UniqueConstraint("image", name=op.f("uq_snapshot_image")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
    op.create_index(op.f("ix_snapshot_due_at"), "snapshot", ["due_at"], unique=False)
