"""The trusts by which images are read in their owners' names, and which actions are still being done."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _moment() -> TypeEngine[datetime]:
    return sa.DateTime().with_variant(DATETIME(fsp=6), "mariadb")


def upgrade() -> None:
    op.add_column("action", sa.Column("alive_at", _moment(), nullable=True))
    op.create_index(op.f("ix_action_alive_at"), "action", ["alive_at"], unique=False)
    op.create_table(
        "image_trust",
        sa.Column("project_id", _words(255), nullable=False),
        sa.Column("user_id", _words(255), nullable=False),
        sa.Column("trust", _words(64), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "user_id", name=op.f("pk_image_trust")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
