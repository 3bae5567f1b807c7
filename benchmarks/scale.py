"""A million containers in the database: what requests cost then, beside what they cost with ten thousand.

On PostgreSQL, by one client; the rows are made by the database itself. The project that is asked about has them all.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from benchmarks.api import creates, measured, requests
from benchmarks.plane import ControlPlane, control_plane, database
from benchmarks.table import Table
from benchmarks.wire import Load, Target, repeated
from higgins.store.schema import action, container, workload

SMALL = 10_000
LARGE = 1_000_000

#: What differs from copy to copy; the first part of a uuid says which one it is. All else is copied.
_OWN = {
    "uuid": "lpad(to_hex(copy), 8, '0') || substr(uuid, 9)",
    "container_uuid": "lpad(to_hex(copy), 8, '0') || substr(container_uuid, 9)",
    "id": f"id + copy * {SMALL}",
    "workload_id": f"workload_id + copy * {SMALL}",
    "name": "name || '-' || copy",
    "created_at": "created_at + copy * interval '1 day'",
}


def measure(seconds: float) -> Table:
    """The p50 of each request with few and with many containers, and how many times as long that is."""
    with database("postgresql") as url, control_plane(url) as plane:
        plane.fill(0, SMALL)
        few = _loads(plane, seconds)
        with plane.engine.begin() as conn:
            _copy(conn, LARGE // SMALL - 1)
        with plane.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself, sooner or later
        many = _loads(plane, seconds)
    rows = [
        (what, measured(load), measured(many[what]), f"{many[what].p50 / load.p50:.2f}") for what, load in few.items()
    ]
    head = ("requests a second (p50, p99 in ms), 1 at once", f"of {SMALL}", f"of {LARGE}", "p50 to p50")
    return Table("Many containers, on PostgreSQL", head, rows)


def _loads(plane: ControlPlane, seconds: float) -> dict[str, Load]:
    target = Target(plane)
    asked = requests(target, SMALL)
    asked["page of 100, all projects"] = target.request("GET", "/v1/containers?limit=100&all_projects=true")
    loads = {what: repeated(target, request, at_once=1, seconds=seconds) for what, request in asked.items()}
    loads["create accepted"] = creates(plane, target, at_once=1)
    return loads


def _copy(conn: Connection, copies: int) -> None:
    """So many copies of the containers that are there, with all that belongs to them."""
    conn.exec_driver_sql("SET LOCAL session_replication_role = replica")  # foreign keys hold: whole sets are copied
    conn.exec_driver_sql("SET LOCAL maintenance_work_mem = '256MB'")
    for table in (workload, container, action):
        for index in table.indexes:  # to make one of all rows takes a fraction of the time
            index.drop(conn)
        columns = ", ".join(column.name for column in table.columns)
        values = ", ".join(_OWN.get(column.name, column.name) for column in table.columns)
        rows = f"SELECT {values} FROM {table.name}, generate_series(1, {copies}) copy WHERE id <= {SMALL}"
        conn.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) {rows}")
        newest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
        conn.execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(table.name, "id"), newest)))
        for index in table.indexes:
            index.create(conn)
