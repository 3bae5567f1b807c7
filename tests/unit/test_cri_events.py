"""Events of containerd, where the engine is slow to follow its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import EngineUnavailable
from higgins.runtimes.cri import events
from higgins.runtimes.cri.config import PREFIX

NEVER = 1e6


class Engine:
    """containerd and its CRI: an exit of ``slow`` is one that CRI never gets to see."""

    def __init__(self, *told: tuple[str, str, str]) -> None:
        self._told = told

    async def is_containerd(self) -> bool:
        return True

    async def containerd(self) -> "Engine":
        return self

    async def life_events(self) -> AsyncIterator[tuple[str, str, str]]:
        for one in self._told:
            yield one

    async def sandboxes(self) -> list[Any]:
        return []

    async def containers(self) -> list[Any]:
        return [SimpleNamespace(id=name, labels={PREFIX + "sandbox": f"of {name}"}) for name in ("slow", "quick")]

    async def status(self, engine_id: str) -> Any:
        state = cri.CONTAINER_RUNNING if engine_id == "slow" else cri.CONTAINER_EXITED
        return SimpleNamespace(status=SimpleNamespace(state=state))


class Endless(Engine):
    async def life_events(self) -> AsyncIterator[tuple[str, str, str]]:
        async for one in super().life_events():
            yield one
        await asyncio.Event().wait()


async def test_an_event_that_has_to_wait_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_SETTLE", NEVER)
    engine: Any = Endless(
        ("/tasks/exit", "slow", "slow"), ("/tasks/start", "quick", ""), ("/tasks/exit", "quick", "quick")
    )
    async with asyncio.timeout(30), aclosing(events.events(engine)) as told:  # type: ignore[type-var]
        assert [(await anext(told)).sandbox for _ in range(2)] == ["of quick", "of quick"]


async def test_the_end_of_the_engine_ends_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_SETTLE", NEVER)
    engine: Any = Engine(("/tasks/exit", "slow", "slow"), ("/tasks/start", "quick", ""))
    seen = []
    with pytest.raises(EngineUnavailable):
        async for event in events.events(engine):
            seen.append(event.sandbox)
    assert seen == ["of quick"]
