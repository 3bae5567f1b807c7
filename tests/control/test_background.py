"""Work beside a process' main one: what fails begins again."""

import asyncio

import pytest

from higgins.control import background, housekeeping
from higgins.control.cloud import Cloud
from higgins.model.errors import StoreUnavailable


async def test_housekeeping_goes_on_after_a_write_that_failed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_RETRY", 0)
    monkeypatch.setattr(housekeeping, "_EVERY", 0)
    kept, failed = asyncio.Event(), asyncio.Event()

    def sweep(conn: object, cloud: Cloud) -> int:
        if not failed.is_set():
            failed.set()
            raise StoreUnavailable("The disk is full.")
        kept.set()
        return 0

    monkeypatch.setattr(housekeeping, "sweep", sweep)
    async with background.background(lambda: housekeeping.run(cloud)), asyncio.timeout(30):
        await kept.wait()
