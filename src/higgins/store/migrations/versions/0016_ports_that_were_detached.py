"""Ports that were detached and that their host may have yet.

An older version beside this one takes such a port for nobody's and its address for taken, and deletes it with its
workload. That the host is without it, as that one may be told, is found by this one later.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    words = sa.String(8).with_variant(sa.String(8, collation="C"), "postgresql")
    op.add_column("workload", sa.Column("detaching", words, nullable=True))
    with op.batch_alter_table("port") as table:
        table.alter_column("workload_id", existing_type=_ID, nullable=True)
        table.add_column(sa.Column("leaving_id", _ID, nullable=True))
        table.create_foreign_key(op.f("fk_port_leaving_id"), "workload", ["leaving_id"], ["id"], ondelete="CASCADE")
        table.create_index(op.f("ix_port_leaving_id"), ["leaving_id"], unique=False)
