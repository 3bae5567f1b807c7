"""Many rows with one statement and one argument, on PostgreSQL: as JSON, which it takes apart itself.

Arguments for each row cost Python more than all else that it does for the row; one text costs next to nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

#: The name of the statement's argument that ``rows`` makes a table of.
ROWS = "rows"


def encoded(rows: Iterable[Any]) -> dict[str, str]:
    """The argument of a statement that ``rows`` is part of: structs, or dictionaries with the same keys."""
    return {ROWS: msgspec.json.encode(list(rows)).decode()}


def rows(columns: Mapping[str, TypeEngine[Any]]) -> sa.FromClause:
    """The argument ``rows`` as a table ``given`` with these columns."""
    text = sa.cast(sa.bindparam(ROWS, type_=sa.Text()), sa.JSON())
    named = [sa.column(name, _plain(kind)) for name, kind in columns.items()]
    return sa.func.json_to_recordset(text).table_valued(*named).render_derived(name="given", with_types=True)


def one_of(name: str, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """What a column equals that is in the list ``name``: a statement stays the same however long the list is."""
    return sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(_plain(column.type))))


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Text without a length: what is too long for its column is the column's to refuse."""
    return sa.Text() if isinstance(kind, sa.String) else kind


def insert_all(
    conn: Connection, table: sa.Table, values: Sequence[Mapping[str, object]], returning: tuple[str, ...] = ()
) -> list[Row[Any]]:
    """Insert rows that all name the same columns; of each row the columns that were asked for, in any order."""
    if not values:
        return []
    result = conn.execute(_insert(table, tuple(values[0]), returning), encoded(values))
    return list(result.all()) if returning else []


@lru_cache(maxsize=64)
def _insert(table: sa.Table, names: tuple[str, ...], returning: tuple[str, ...]) -> sa.Insert:
    given = rows({name: table.c[name].type for name in names})
    statement = sa.insert(table).from_select(list(names), sa.select(*(given.c[name] for name in names)))
    return statement.returning(*(table.c[name] for name in returning)) if returning else statement
