"""Which versions get by with the tables: an older one that is started sees whether it is among them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

#: The first version that looks. A later revision that takes away what older versions use says so by one of its own.
floor = "0014"


def upgrade() -> None:
    op.create_table(
        "schema_floor",
        sa.Column("revision", sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_floor")),
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_nopad_bin",
    )
