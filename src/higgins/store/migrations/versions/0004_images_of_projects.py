"""Images that are a project's own, claims of volumes, and indexes for what is looked up all the time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: Volumes had counted for nothing: charge them to their projects, and claim them of their hosts.
_CHARGED = """
UPDATE project SET disk = disk + (
    SELECT coalesce(sum(volume.size), 0) FROM volume WHERE volume.project_id = project.id AND NOT volume.deleting
)
"""
_CLAIMED = """
UPDATE host SET disk_used = disk_used + (
    SELECT coalesce(sum(volume.size), 0) FROM volume WHERE volume.host_id = host.id
)
"""


def _words(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("image", sa.Column("reference", _words(512), nullable=True))
    image = sa.table("image", sa.column("repo", sa.String()), sa.column("tag", sa.String()), sa.column("reference"))
    op.execute(sa.update(image).values(reference=image.c.repo + ":" + image.c.tag))
    with op.batch_alter_table("image") as table:
        table.alter_column("reference", existing_type=_words(512), nullable=False)
        table.drop_constraint(op.f("uq_image_host_repo_tag"), type_="unique")
        table.create_unique_constraint(op.f("uq_image_host_reference"), ["host", "reference"])
        table.create_index(op.f("ix_image_repo_tag"), ["repo", "tag"], unique=False)
    op.execute(_CHARGED)
    op.execute(_CLAIMED)
    op.create_index(op.f("ix_volume_host_id_deleting"), "volume", ["host_id", "deleting"], unique=False)
    op.create_index(op.f("ix_event_at"), "event", ["at"], unique=False)
