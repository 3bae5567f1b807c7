"""Hosts that join over the network: their certificates, the authority that signs them, and tokens to join with."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
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
        "authority",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("certificate", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authority")),
        **_MARIADB,
    )
    op.create_table(
        "join_token",
        sa.Column("token_hash", _words(64), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_join_token")),
        **_MARIADB,
    )
    op.create_table(
        "certificate",
        sa.Column("serial", _words(40), nullable=False),
        sa.Column("host_id", _ID, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("revoked_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["host.id"], name=op.f("fk_certificate_host_id")),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificate")),
        **_MARIADB,
    )
    op.create_index(op.f("ix_certificate_expires_at"), "certificate", ["expires_at"], unique=False)
    op.create_index(op.f("ix_certificate_host_id"), "certificate", ["host_id"], unique=False)
    op.add_column("host", sa.Column("address", _words(255), nullable=True))
    op.add_column("host", sa.Column("tls_name", _words(36), nullable=True))
    op.add_column("host", sa.Column("revoked_at", _MOMENT, nullable=True))
