"""Ports that were detached and that their host may have yet: until it is without them nobody else has their addresses.

Nobody is shown such a port, and no host is told of it. It is given up once the host reports that nothing is left to do
for its workload; or when that is elsewhere, or deleted; or when the host is lost, if it had heard of it (``fencing``).
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from higgins.control import cloud_ports
from higgins.control.cloud import Cloud
from higgins.store.schema import port, workload

UNHEARD = "unheard"
HEARD = "heard"


def detach(conn: Connection, workload_id: int, rows: list[Row[Any]]) -> None:
    """These ports of local networks leave a workload. Its host is to be told."""
    mine = port.c.id.in_([row.id for row in rows])
    conn.execute(sa.update(port).where(mine).values(workload_id=None, leaving_id=workload_id))
    begin(conn, workload_id)


def begin(conn: Connection, workload_id: int) -> None:
    """Ports leave a workload, and its host has not heard of it."""
    conn.execute(sa.update(workload).where(workload.c.id == workload_id).values(detaching=UNHEARD))


def take_back(conn: Connection, workload_id: int, network_id: int, address: str) -> None:
    """An address that has not left a workload yet is free for itself: its host unplugs before it plugs."""
    own = (port.c.leaving_id == workload_id, port.c.network_id == network_id, port.c.address == address)
    conn.execute(sa.delete(port).where(*own))


def end(conn: Connection, cloud: Cloud, workload_id: int) -> None:
    """No host has the ports any more that have left a workload."""
    conn.execute(sa.delete(port).where(port.c.leaving_id == workload_id))
    cloud_ports.let_go(conn, cloud, workload_id)
    conn.execute(sa.update(workload).where(workload.c.id == workload_id).values(detaching=None))
