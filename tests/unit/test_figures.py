"""What an agent tells Prometheus of itself."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from higgins.agent.figures import serve_figures
from higgins.model.addresses import BadAddress
from tests.unit.fakes import assignment
from tests.unit.test_agent import Host, until


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.stop()


async def scraped(url: str) -> dict[str, float]:
    """The figures by name and labels, as they stand in the text."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200 and answer.content_type == "text/plain"
        text = await answer.text()
    return {name: float(value) for name, value in re.findall(r"^(higgins_\S+) (\S+)$", text, re.MULTILINE)}


async def test_an_agent_tells_what_it_holds_whom_it_hears_and_what_waits(host: Host) -> None:
    time = 1000.0
    host.control.put(assignment())
    host.start(clock=lambda: time)
    async with AsyncExitStack() as stack:
        assert host.agent is not None
        where, port = await serve_figures(stack, host.agent.figures, "127.0.0.1:0")
        url = f"http://{where}:{port}/metrics"
        await host.settled()
        await until(lambda: host.agent is not None and host.agent._outbox.waiting == 0)
        told = await scraped(url)
        assert told['higgins_host_containers{state="running"}'] == 1
        assert sum(value for name, value in told.items() if name.startswith("higgins_host_containers")) == 1
        assert (told["higgins_control_plane_silence_seconds"], told["higgins_reports_waiting"]) == (0, 0)
        assert told['higgins_step_seconds_count{step="CreateContainer"}'] == 1
        time += 90
        assert (await scraped(url))["higgins_control_plane_silence_seconds"] == 90
    with pytest.raises(aiohttp.ClientConnectorError):
        await scraped(url)


async def test_a_control_plane_that_never_answered_is_silent_since_the_start(host: Host) -> None:
    time = 1000.0
    host.control.revision = -1
    host.start(clock=lambda: time)
    async with AsyncExitStack() as stack:
        assert host.agent is not None
        where, port = await serve_figures(stack, host.agent.figures, "127.0.0.1:0")
        time += 90
        assert (await scraped(f"http://{where}:{port}/metrics"))["higgins_control_plane_silence_seconds"] == 90


async def test_figures_are_told_only_at_an_address(host: Host) -> None:
    host.start()
    assert host.agent is not None
    async with AsyncExitStack() as stack:
        with pytest.raises(BadAddress):
            await serve_figures(stack, host.agent.figures, "nowhere")
