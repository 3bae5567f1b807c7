"""Indexes for what lists of containers are sorted and filtered by, so that a page costs the same in a long list."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEW = (
    ("name", "project_id", "role"),
    ("role", "id"),
    ("project_id", "role", "name", "id"),
    ("project_id", "role", "image", "id"),
    ("project_id", "role", "status", "id"),
    ("project_id", "role", "created_at", "id"),
)


def upgrade() -> None:
    for columns in _NEW:
        op.create_index(op.f("ix_container_" + "_".join(columns)), "container", list(columns), unique=False)
    op.drop_index(op.f("ix_container_project_id_name"), "container")
