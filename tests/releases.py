"""Releases of Higgins that are still to come: this one's packages, and revisions after the newest."""

import shutil
from pathlib import Path

from higgins.store.migrate import head

ROOT = Path(__file__).resolve().parents[1]
MIGRATIONS = "higgins/store/migrations"
#: The revision of the next release.
NEXT = "9000"

_REVISION = '''"""What the next release has more."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{next}", "{head}", None, None
{floor}

def upgrade() -> None:
    op.add_column("host", sa.Column("colour", sa.String(20), nullable=True))
'''


def next_release(place: Path, *, floor: str | None = None) -> Path:
    """Its packages, in ``place``; ``floor`` as its revision says it."""
    shutil.copytree(ROOT / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))
    told = "" if floor is None else f'floor = "{floor}"\n'
    revision = place / "src" / MIGRATIONS / "versions" / f"{NEXT}_next.py"
    revision.write_text(_REVISION.format(next=NEXT, head=head(), floor=told))
    return place / "src"
