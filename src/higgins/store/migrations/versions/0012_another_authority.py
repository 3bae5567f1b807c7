"""Which authority a certificate is of, and whether its host has it: for when another authority takes its place."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificate", sa.Column("authority_id", sa.Integer(), nullable=True))
    moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
    op.add_column("certificate", sa.Column("shown_at", moment, nullable=True))
