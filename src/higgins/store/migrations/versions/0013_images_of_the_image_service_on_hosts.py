"""Images of the image service that were pulled to hosts: which, and by whom."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mariadb")
    words = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
    op.add_column("image", sa.Column("found", text, nullable=True))
    op.add_column("image", sa.Column("user_id", words, nullable=True))
