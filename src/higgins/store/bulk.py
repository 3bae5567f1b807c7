"""Many rows with one statement and one argument, on PostgreSQL: as JSON, which it takes apart itself.

Arguments for each row cost Python more than all else that it does for the row; one text costs next to nothing. And
several questions with one statement, for who waits for each answer alone waits longer than they take.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

#: What ``rows`` are called where a statement takes but one such argument.
_GIVEN = "given"


def encoded(rows: Iterable[Any], name: str = _GIVEN) -> dict[str, str]:
    """The argument of a statement that ``rows`` is part of: structs, or dictionaries with the same keys."""
    return {name: msgspec.json.encode(list(rows)).decode()}


def rows(columns: Mapping[str, TypeEngine[Any]], name: str = _GIVEN) -> sa.FromClause:
    """The argument of this name as a table with these columns."""
    text = sa.cast(sa.bindparam(name, type_=sa.Text()), sa.JSON())
    named = [sa.column(name, _plain(kind)) for name, kind in columns.items()]
    return sa.func.json_to_recordset(text).table_valued(*named).render_derived(name=name, with_types=True)


def at_once(**queries: sa.Select[Any] | sa.CompoundSelect[Any]) -> sa.Select[Any]:
    """One statement for several questions: a JSON object with the answer to each, a list of objects."""
    named = [part for name, query in queries.items() for part in (sa.text(f"'{name}'"), _listed(query.subquery(name)))]
    return sa.select(sa.cast(sa.func.json_build_object(*named), sa.Text()))


def _listed(rows: sa.Subquery) -> sa.ScalarSelect[Any]:
    listed = sa.func.coalesce(sa.func.json_agg(rows.table_valued()), sa.text("'[]'"))
    return sa.select(listed).select_from(rows).scalar_subquery()


def one_of(name: str, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """What a column equals that is in the list ``name``: a statement stays the same however long the list is."""
    return sa.any_(sa.bindparam(name, type_=postgresql.ARRAY(_plain(column.type))))


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Text without a length: what is too long for its column is the column's to refuse."""
    return sa.Text() if isinstance(kind, sa.String) else kind


def new_rows(table: sa.Table, names: Iterable[str], **others: TypeEngine[Any]) -> sa.FromClause:
    """The argument ``new_`` and the table's name, as a table with these of its columns and ``others``."""
    return rows({**{name: table.c[name].type for name in names}, **others}, f"new_{table.name}")


def insert_from(table: sa.Table, source: sa.FromClause, **values: sa.ColumnElement[Any]) -> sa.Insert:
    """Insert a row for each of ``source``. Columns without a value get their default."""
    for column in table.c:
        if column.name not in values and column.default is not None:
            values[column.name] = sa.literal(column.default.arg, column.type)  # type: ignore[attr-defined]
    return sa.insert(table).from_select(list(values), sa.select(*values.values()).select_from(source))
