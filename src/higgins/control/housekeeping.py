"""What is done once in a while: silent hosts' containers become Unknown, and what nobody asks for any more goes."""

import asyncio
import logging
from datetime import timedelta
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from higgins.control import attachments, evacuation, recording, sharing, snapshots
from higgins.control.cloud import Cloud
from higgins.control.fencing import WORN, lost_after
from higgins.model.container import Status
from higgins.store.database import touch_host
from higgins.store.schema import console, container, event, host, idempotency, image

LOG = logging.getLogger(__name__)

#: How long an event can be read again, an Idempotency-Key is known, and an image may be on its way to a host.
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
        if step := await cloud.keep_time():
            LOG.warning("The clock of the database was set. No host counts as lost before it had the time to be heard.")
            await cloud.store.write(partial(clock_set, cloud=cloud, step=step))
            watch = Watch(clock())
        lost = await cloud.store.write(lambda conn: sweep(conn, cloud))
        if lost:
            LOG.warning("%d containers are Unknown: their hosts are silent.", lost)
        long_enough = watch.long_enough(clock(), lost_after(cloud.settings))
        if long_enough:
            await cloud.store.write(partial(heard_by_now, cloud=cloud))
        left = await evacuation.everywhere(cloud, lost=long_enough)
        if left.moving:
            LOG.info("%d workloads are leaving their hosts.", len(left.moving))


def clock_set(conn: Connection, cloud: Cloud, step: timedelta) -> None:
    """The database's clock was set: by one set forward no host falls silent, by one set back none comes to life.

    Hosts that were up seem to be heard in the future by a clock set back: see ``heard_by_now``.
    """
    now, lease = cloud.now(), timedelta(seconds=cloud.settings.host_lease)
    up = host.c.seen_at >= now - step - lease
    if step > lease / 2:  # a host speaks more often than that, and would be up for ever by two clocks in turn
        conn.execute(sa.update(host).where(up).values(seen_at=now))
    elif step < timedelta():
        conn.execute(sa.update(host).where(sa.not_(up), host.c.seen_at > now - lease).values(seen_at=now - lease))


def heard_by_now(conn: Connection, cloud: Cloud) -> None:
    """No host was heard in the future, or it would be up until then, whatever becomes of it.

    Not to be called before all replicas know that the clock was set back: for one that does not, it is long ago.
    """
    now = cloud.now()
    future = host.c.seen_at > now + timedelta(seconds=cloud.settings.host_lease * WORN)
    conn.execute(sa.update(host).where(future).values(seen_at=now))


def sweep(conn: Connection, cloud: Cloud) -> int:
    """One round; how many containers became Unknown."""
    now = cloud.now()
    conn.execute(sa.delete(console).where(console.c.expires_at < now))
    conn.execute(sa.delete(event).where(event.c.at < now - _KEEP))
    snapshots.end_interrupted(conn, cloud)
    conn.execute(sa.delete(idempotency).where(idempotency.c.created_at < now - _KEEP))
    begun_at = sa.func.coalesce(image.c.updated_at, image.c.created_at)
    conn.execute(sa.delete(image).where(image.c.image_id.is_(None), begun_at < now - _KEEP))
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
