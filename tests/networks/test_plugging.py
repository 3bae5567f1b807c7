"""Wires come, stay, are found again and go."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from higgins.model.errors import EngineError, Invalid
from higgins.networks.base import Plugged
from higgins.networks.local import open_local_network
from higgins.networks.local.wires import bridge_name, port_name
from tests.networks.conftest import Site, wire
from tests.networks.namespaces import Host, eventually, listening, reaches

Names = Callable[[], set[str]]


async def test_the_interface_is_as_the_port_says(site: Site) -> None:
    port = wire(str(uuid4()), 5)
    place = site.sandbox()
    await site.network.plug(place.path, str(uuid4()), [port])
    link = json.loads(place.run("ip", "-j", "address", "show", "eth0"))[0]
    assert (link["address"], link["mtu"]) == (port.mac, 1500)
    assert [(a["local"], a["prefixlen"]) for a in link["addr_info"] if a["family"] == "inet"] == [("10.88.1.5", 24)]
    routes = json.loads(place.run("ip", "-j", "route"))
    assert [route["gateway"] for route in routes if route["dst"] == "default"] == ["10.88.1.1"]


async def test_several_ports_have_one_default_route(site: Site) -> None:
    first = wire(str(uuid4()), 5)
    second = msgspec.structs.replace(
        wire(str(uuid4()), 5, subnet="10.88.2", name="eth1"), default_route=False, mtu=1400
    )
    place = site.sandbox()
    await site.network.plug(place.path, str(uuid4()), [first, second])
    routes = json.loads(place.run("ip", "-j", "route"))
    assert [route["dev"] for route in routes if route["dst"] == "default"] == ["eth0"]
    assert json.loads(place.run("ip", "-j", "link", "show", "eth1"))[0]["mtu"] == 1400


async def test_plugged_twice_is_plugged_once(site: Site) -> None:
    port, workload, place = wire(str(uuid4()), 5), str(uuid4()), site.sandbox()
    await site.network.plug(place.path, workload, [port])
    before = site.host.run("ip", "-j", "link", "show", port_name(port.uuid))
    await site.network.plug(place.path, workload, [port])
    assert json.loads(site.host.run("ip", "-j", "link", "show", port_name(port.uuid))) == json.loads(before)
    assert await site.network.plugged() == [Plugged(workload=workload, port=port.uuid)]


async def test_a_second_port_comes_to_one_wired_already(site: Site) -> None:
    first, second = wire(str(uuid4()), 5), wire(str(uuid4()), 5, subnet="10.88.2", name="eth1")
    workload, place = str(uuid4()), site.sandbox()
    await site.network.plug(place.path, workload, [first])
    await site.network.plug(place.path, workload, [first, second])
    await site.network.unplug(workload, [first.uuid])
    assert await site.network.plugged() == [Plugged(workload=workload, port=second.uuid)]


async def test_unplugged_twice_is_gone_and_no_error(site: Site, link_names: Names) -> None:
    port, workload, place = wire(str(uuid4()), 5), str(uuid4()), site.sandbox()
    await site.network.plug(place.path, workload, [port])
    await site.network.unplug(workload, [port.uuid])
    await site.network.unplug(workload, [port.uuid])
    assert await site.network.plugged() == []
    assert "eth0" not in place.run("ip", "link")
    assert port_name(port.uuid) not in link_names()


async def test_the_bridge_goes_with_its_last_port(site: Site, link_names: Names) -> None:
    network, workload = str(uuid4()), str(uuid4())
    one, two = wire(network, 5), wire(network, 6, name="eth1")
    await site.network.plug(site.sandbox().path, workload, [one, two])
    await site.network.unplug(workload, [one.uuid])
    assert bridge_name(network) in link_names()
    await site.network.unplug(workload, [two.uuid])
    assert bridge_name(network) not in link_names()


async def test_what_died_with_its_namespace_is_unplugged_without_error(site: Site, link_names: Names) -> None:
    port, workload, place = wire(str(uuid4()), 5), str(uuid4()), site.sandbox()
    await site.network.plug(place.path, workload, [port])
    place.close()
    eventually(lambda: port_name(port.uuid) not in link_names())
    await site.network.unplug(workload, [port.uuid])
    assert bridge_name(port.network) not in link_names()


async def test_another_workload_s_port_is_not_unplugged(site: Site) -> None:
    port, workload = wire(str(uuid4()), 5), str(uuid4())
    await site.network.plug(site.sandbox().path, workload, [port])
    await site.network.unplug(str(uuid4()), [port.uuid])
    assert await site.network.plugged() == [Plugged(workload=workload, port=port.uuid)]


async def test_a_restarted_agent_finds_what_is_plugged(site: Site, tmp_path: Path) -> None:
    port, workload, place = wire(str(uuid4()), 5), str(uuid4()), site.sandbox()
    await site.network.plug(place.path, workload, [port])
    again = open_local_network(tmp_path / "network")
    await again.setup()
    assert await again.plugged() == [Plugged(workload=workload, port=port.uuid)]
    await again.plug(place.path, workload, [port])
    await again.unplug(workload, [port.uuid])
    assert await site.network.plugged() == []


async def test_a_restart_keeps_the_filters_until_the_next_are_known(site: Site, tmp_path: Path) -> None:
    one = await site.container(wire(str(uuid4()), 5))
    await open_local_network(tmp_path / "network").setup()
    with listening(site.host, 8080):
        reaches(one, "10.88.1.1", 8080)


async def test_who_may_reach_whom_is_nobody_elses_to_read(site: Site, tmp_path: Path) -> None:
    await site.network.apply([], [])
    (saved,) = (tmp_path / "network").iterdir()
    assert saved.stat().st_mode & 0o777 == 0o600


async def test_filters_that_somebody_flushed_come_back_with_setup(site: Site, tmp_path: Path) -> None:
    def ours() -> list[str]:
        return [site.host.run("nft", "list", "table", family, "higgins") for family in ("inet", "bridge")]

    await site.container(wire(str(uuid4()), 5))
    before = ours()
    for setup in (site.network.setup, open_local_network(tmp_path / "network").setup):
        site.host.run("nft", "flush", "ruleset")
        await setup()
        assert ours() == before


@pytest.mark.parametrize("left", ["\0" * 64, "table inet higgins {\n"], ids=["nothing written", "half written"])
async def test_of_a_ruleset_that_a_power_cut_left_broken_nothing_is_let_through(
    site: Site, tmp_path: Path, left: str
) -> None:
    await site.network.apply([], [])
    before = site.host.run("nft", "list", "ruleset")
    site.host.run("nft", "flush", "ruleset")
    (tmp_path / "network" / "ruleset.nft").write_text(left)
    await open_local_network(tmp_path / "network").setup()
    assert site.host.run("nft", "list", "ruleset") == before


async def test_a_new_sandbox_of_the_same_workload_is_wired_anew(site: Site) -> None:
    port, workload, old, new = wire(str(uuid4()), 5), str(uuid4()), site.sandbox(), site.sandbox()
    await site.network.plug(old.path, workload, [port])
    await site.network.plug(new.path, workload, [port])
    assert "eth0" in new.run("ip", "link")
    assert "eth0" not in old.run("ip", "link")


@pytest.mark.parametrize("done", ["the veth", "the alias"])
async def test_a_plug_that_a_crash_cut_short_is_done_by_the_next(site: Site, done: str) -> None:
    port, workload, place = wire(str(uuid4()), 5), str(uuid4()), site.sandbox()
    site.host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", str(place.pid))
    if done == "the alias":
        site.host.run("ip", "link", "set", "veth0", "alias", f"higgins:{workload}:{port.uuid}:1")
    await site.network.plug(place.path, workload, [port])
    assert await site.network.plugged() == [Plugged(workload=workload, port=port.uuid)]
    assert port.address in place.run("ip", "address")


async def test_an_interface_of_another_port_is_not_taken_away(site: Site) -> None:
    workload, place = str(uuid4()), site.sandbox()
    first = wire(str(uuid4()), 5)
    await site.network.plug(place.path, workload, [first])
    with pytest.raises(EngineError, match=r"could not be wired: .*already exists"):
        await site.network.plug(place.path, workload, [wire(first.network, 6)])
    assert first.address in place.run("ip", "address")


async def test_twenty_at_once_are_all_wired_and_unwired(site: Site, link_names: Names) -> None:
    networks = [str(uuid4()), str(uuid4())]
    work = [(str(uuid4()), wire(networks[n % 2], 10 + n, subnet=f"10.88.{1 + n % 2}")) for n in range(20)]
    place = [site.sandbox() for _ in work]
    await asyncio.gather(
        *(site.network.plug(place[n].path, workload, [port]) for n, (workload, port) in enumerate(work))
    )
    found = {(plugged.workload, plugged.port) for plugged in await site.network.plugged()}
    assert found == {(workload, port.uuid) for workload, port in work}
    await asyncio.gather(*(site.network.unplug(workload, [port.uuid]) for workload, port in work))
    assert await site.network.plugged() == []
    assert not {bridge_name(network) for network in networks} & link_names()


async def test_neighbours_learn_who_has_an_address_now(site: Site) -> None:
    network, workload = str(uuid4()), str(uuid4())
    one, before = wire(network, 5), wire(network, 6)
    after = msgspec.structs.replace(wire(network, 6), mac="02:00:00:00:00:99")
    neighbour = site.sandbox()
    await site.network.plug(neighbour.path, str(uuid4()), [one])
    await site.network.plug(site.sandbox().path, workload, [before])
    neighbour.run("ip", "neighbour", "add", before.address, "lladdr", before.mac, "dev", "eth0", "nud", "stale")
    await site.network.unplug(workload, [before.uuid])
    await site.network.plug(site.sandbox().path, workload, [after])
    eventually(lambda: after.mac in neighbour.run("ip", "neighbour", "show", before.address))


async def test_plugs_and_unplugs_on_one_network_do_not_lose_the_bridge(site: Site) -> None:
    network = str(uuid4())

    async def life(number: int) -> None:
        workload, port, place = str(uuid4()), wire(network, 10 + number), site.sandbox()
        await site.network.plug(place.path, workload, [port])
        assert port_name(port.uuid) in site.host.run("ip", "link", "show", "master", bridge_name(network))
        await site.network.unplug(workload, [port.uuid])

    await asyncio.gather(*(life(number) for number in range(6)))
    assert await site.network.plugged() == []


async def test_teardown_leaves_what_was_there_before(own_namespaces: None, tmp_path: Path, link_names: Names) -> None:
    host = Host()
    host.run("ip", "link", "add", "hg0123456789ab", "type", "bridge")
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    host.run("nft", "add", "table", "inet", "others")
    host.run("nft", "add", "chain", "inet", "others", "forward", "{ type filter hook forward priority 5; }")
    host.run("nft", "add", "rule", "inet", "others", "forward", "tcp", "dport", "9", "drop")
    links, rules = link_names(), host.run("nft", "list", "ruleset")
    try:
        site = Site(open_local_network(tmp_path / "network"))
        await site.network.setup()
        await site.container(wire(str(uuid4()), 5))
        assert host.run("nft", "list", "ruleset").startswith(rules), "the others' table is as it was"
        await site.network.teardown()
        await site.network.teardown()
        assert (link_names(), host.run("nft", "list", "ruleset")) == (links, rules)
        site.opened[0].close()
    finally:
        host.run("ip", "link", "delete", "hg0123456789ab")
        host.run("ip", "link", "delete", "veth0")
        host.run("nft", "delete", "table", "inet", "others")


async def test_setup_removes_a_bridge_that_a_crash_left_without_ports(site: Site, link_names: Names) -> None:
    port, place = wire(str(uuid4()), 5), site.sandbox()
    await site.network.plug(place.path, str(uuid4()), [port])
    place.close()
    eventually(lambda: port_name(port.uuid) not in link_names())
    assert bridge_name(port.network) in link_names()
    await site.network.setup()
    assert bridge_name(port.network) not in link_names()


async def test_no_program_is_run_for_a_wire(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting programs is what plugging costs."""
    started: list[str] = []
    start = asyncio.create_subprocess_exec

    async def counting(program: str, *args: str, **more: Any) -> asyncio.subprocess.Process:
        started.append(Path(program).name)
        return await start(program, *args, **more)

    network, workload, place = str(uuid4()), str(uuid4()), site.sandbox()
    one, two = wire(network, 5), wire(network, 6, name="eth1")
    await site.network.plug(place.path, workload, [one])
    monkeypatch.setattr(asyncio, "create_subprocess_exec", counting)
    await site.network.plug(place.path, workload, [two])
    assert started == []
    await site.let(two)
    assert started == []


async def test_filters_that_nftables_refuses_are_an_error_in_its_words(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = wire(str(uuid4()), 5)
    await site.let(port)
    before = site.host.run("nft", "list", "ruleset")
    monkeypatch.setattr(
        "higgins.networks.local.driver.ruleset", lambda *_, **__: "flush table inet higgins\nadd nothing"
    )
    with pytest.raises(EngineError, match="syntax error"):
        await site.let(port)
    assert site.host.run("nft", "list", "ruleset") == before


async def test_the_hosts_own_namespace_is_never_wired(site: Site, tmp_path: Path) -> None:
    (tmp_path / "net").symlink_to("/proc/self/ns/net")  # as the number of a process that is another's by now
    before = site.host.run("ip", "-j", "address")
    for path in (str(tmp_path / "net"), "/proc/self/ns/net"):
        with pytest.raises(EngineError, match="no network namespace"):
            await site.network.plug(path, str(uuid4()), [wire(str(uuid4()), 5)])
    assert site.host.run("ip", "-j", "address") == before


async def test_a_namespace_that_is_not_there_is_said_to_be_missing(site: Site) -> None:
    with pytest.raises(EngineError, match="no network namespace"):
        await site.network.plug("/proc/0/ns/net", str(uuid4()), [wire(str(uuid4()), 5)])


async def test_what_is_no_uuid_is_refused(site: Site) -> None:
    place = site.sandbox()
    with pytest.raises(Invalid, match="is not a uuid"):
        await site.network.plug(place.path, "w; link delete dev lo", [wire(str(uuid4()), 5)])
