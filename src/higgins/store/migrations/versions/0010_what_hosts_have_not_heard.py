"""Which workloads their hosts have not heard of that they end them once they are lost."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workload", sa.Column("unheard", sa.Boolean(), nullable=True))
