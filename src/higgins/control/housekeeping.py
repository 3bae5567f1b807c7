"""What is done once in a while: silent hosts' containers become Unknown, and what nobody asks for any more goes."""

import asyncio
import logging
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control import attachments, evacuation, recording, sharing, snapshots
from higgins.control.cloud import Cloud
from higgins.control.fencing import lost_after
from higgins.model.container import Status
from higgins.store.database import touch_host
from higgins.store.schema import console, container, event, host, idempotency

LOG = logging.getLogger(__name__)

#: How long an event can be read again, and an Idempotency-Key is known.
_KEEP = timedelta(days=1)
_EVERY = 10.0
#: States that a host holds up; they are not known any more once it is silent.
_LIVE = (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


class Watch:
    """Whether a process has kept house for long enough to call a silent host lost. Times in seconds, of any clock.

    Hosts seem silent too when nobody could hear them: after the database or all replicas were away.
    """

    def __init__(self, now: float) -> None:
        self._since = self._last = now

    def long_enough(self, now: float, lease: float) -> bool:
        """To be asked every round: whether there was a round at least every three for as long as that.

        ``lease`` is how long a host may be silent.
        """
        if now - self._last > 3 * _EVERY:
            self._since = now
        self._last = now
        return now - self._since > lease


async def run(cloud: Cloud) -> None:
    """Keep house until cancelled."""
    clock = asyncio.get_running_loop().time
    watch = Watch(clock())
    while True:
        await asyncio.sleep(_EVERY)
        if await cloud.keep_time():
            LOG.warning("The clock of the database was set. No host counts as lost before it had the time to be heard.")
            watch = Watch(clock())
        lost = await cloud.store.write(lambda conn: sweep(conn, cloud))
        if lost:
            LOG.warning("%d containers are Unknown: their hosts are silent.", lost)
        left = await evacuation.everywhere(cloud, lost=watch.long_enough(clock(), lost_after(cloud.settings)))
        if left.moving:
            LOG.info("%d workloads are leaving their hosts.", len(left.moving))


def sweep(conn: Connection, cloud: Cloud) -> int:
    """One round; how many containers became Unknown."""
    now = cloud.now()
    conn.execute(sa.delete(console).where(console.c.expires_at < now))
    conn.execute(sa.delete(event).where(event.c.at < now - _KEEP))
    snapshots.end_interrupted(conn, cloud)
    conn.execute(sa.delete(idempotency).where(idempotency.c.created_at < now - _KEEP))
    # Held, so that a host that speaks just now does so before this, or finds its containers Unknown and tells of them.
    silent = dict(
        conn.execute(
            sa.select(host.c.name, host.c.id)
            .where(sa.or_(host.c.seen_at < now - timedelta(seconds=cloud.settings.host_lease), host.c.forced_down))
            .order_by(host.c.id)
            .with_for_update()
        ).all()
    )
    lost = conn.execute(
        sa.select(container)
        .where(container.c.host.in_(silent), container.c.status.in_(_LIVE))
        .order_by(container.c.id)
        .with_for_update()
    ).all()
    attachments.fenced(conn, cloud)
    sharing.level(conn, cloud)
    for name in {row.host for row in lost}:
        touch_host(conn, silent[name])
    for row in lost:
        reason = f"Host {row.host} does not answer."
        conn.execute(
            sa.update(container)
            .where(container.c.id == row.id)
            .values(status=Status.UNKNOWN, status_reason=reason, updated_at=now)
        )
        recording.record_event(
            conn,
            cloud,
            project_id=row.project_id,
            uuid=row.uuid,
            name=row.name,
            status=Status.UNKNOWN,
            reason=reason,
        )
    return len(lost)
