"""What hosts were told: for when another authority takes the place of theirs, or their lease changes.

Which authority a certificate is of and whether its host has shown it; and by which rules a host takes itself for lost.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("certificate", sa.Column("authority_id", sa.Integer(), nullable=True))
    moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mariadb")
    op.add_column("certificate", sa.Column("shown_at", moment, nullable=True))
    op.add_column("host", sa.Column("told_lease", sa.Double(), nullable=True))
    words = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
    op.add_column("host", sa.Column("told_evacuate", words, nullable=True))
