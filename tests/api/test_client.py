"""The unmodified python-zunclient against this API: what it sends is understood, what it reads is there."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import pytest
from keystoneauth1 import session
from keystoneauth1.http_basic import HTTPBasicAuth
from zunclient import client as zun
from zunclient import exceptions

from tests.api.conftest import Caller
from tests.api.host import FakeHost


class Ask(Protocol):
    """Call the client in a thread, as ``user`` in a version; by default in the one it negotiates."""

    async def __call__(self, work: Callable[[Any], Any], user: str = ..., version: str = ...) -> Any: ...


@pytest.fixture
def ask(api: Caller) -> Ask:
    endpoint = str(api.client.make_url("/v1"))

    async def asked(work: Callable[[Any], Any], user: str = "alice", version: str = "1") -> Any:
        def run() -> Any:
            auth = HTTPBasicAuth(endpoint=endpoint, username=user, password=user)
            opened = session.Session(auth)
            try:
                return work(zun.Client(version, session=opened, endpoint_override=endpoint))
            finally:
                opened.session.close()

        return await asyncio.to_thread(run)

    return asked


async def test_the_client_agrees_on_its_own_newest_version(ask: Ask) -> None:
    assert await ask(lambda client: client.http_client.api_version.get_string()) == "1.40"


async def test_the_life_of_a_container(ask: Ask, host: FakeHost) -> None:
    made = await ask(
        lambda client: client.containers.run(
            image="busybox", name="web", command=["sleep", "9"], interactive=True, memory="64", labels={"a": "b"}
        )
    )
    await host.settle()
    shown = await ask(lambda client: client.containers.get("web", all_projects=False))
    assert (shown.uuid, shown.status, shown.memory) == (made.uuid, "Running", "64")
    for verb in (
        lambda client: client.containers.pause("web"),
        lambda client: client.containers.unpause("web"),
        lambda client: client.containers.restart("web", 1),
        lambda client: client.containers.kill("web", None),
        lambda client: client.containers.start("web"),
        lambda client: client.containers.rebuild("web"),
        lambda client: client.containers.update("web", name="web2", cpu=0.5),
    ):
        await ask(verb)
        await host.settle()
    assert (await ask(lambda client: client.containers.get(made.uuid))).name == "web2"
    assert "first" in await ask(
        lambda client: client.containers.logs(
            "web2", stdout=True, stderr=True, timestamps=False, tail="all", since=None
        )
    )
    told = await ask(lambda client: client.containers.execute("web2", command="ls -l", run=True, interactive=False))
    assert told["exit_code"] == 3
    assert (await ask(lambda client: client.containers.top("web2")))["Titles"] == ["PID", "CMD"]
    assert (await ask(lambda client: client.containers.stats("web2")))["CONTAINER"] == "web2"
    assert (await ask(lambda client: client.containers.attach("web2"))).startswith("ws://")
    await ask(lambda client: client.containers.put_archive("web2", "/srv", b"\x00tar"))
    assert host.put == [("/srv", b"\x00tar")]
    assert (await ask(lambda client: client.containers.get_archive("web2", "/etc")))["data"] == host.archive
    assert (await ask(lambda client: client.containers.commit("web2", "mine")))["uuid"]
    (network,) = await ask(lambda client: client.containers.network_list("web2"))
    assert network.fixed_ips
    assert len(await ask(lambda client: client.actions.list("web2"))) >= 8
    await ask(lambda client: client.containers.delete("web2", force=False, stop=True, all_projects=False))
    await host.settle()
    with pytest.raises(exceptions.NotFound, match="could not be found"):
        await ask(lambda client: client.containers.get("web2"))


async def test_an_older_client_sends_its_command_as_text(ask: Ask, host: FakeHost) -> None:
    made = await ask(lambda client: client.containers.create(image="busybox", command=["echo", "a b"]), version="1.12")
    assert made.command == ["echo", "a b"]


def sorted_by_name(limit: int, client: Any) -> Any:
    return client.containers.list(limit=limit, sort_key="name")


async def test_pages_are_followed_by_the_client(ask: Ask, api: Caller, host: FakeHost) -> None:
    for number in range(5):
        await api.create(name=f"c{number}", memory=4)
    assert len(await ask(lambda client: client.containers.list())) == 5
    assert len(await ask(lambda client: client.containers.list(name="c1"))) == 1
    for limit in (1, 2, 5, 10):
        listed = await ask(partial(sorted_by_name, limit))
        assert [item.name for item in listed] == [f"c{number}" for number in range(5)][:limit]
    everything = await ask(lambda client: client.containers.list(all_projects=True, limit=2), user="admin")
    assert len(everything) == 2


async def test_capsules_images_hosts_quotas_and_registries(ask: Ask, host: FakeHost) -> None:
    template = {"kind": "capsule", "metadata": {}, "spec": {"containers": [{"image": "busybox"}]}}
    made = await ask(lambda client: client.capsules.create(template=template))
    assert made.uuid in [item.uuid for item in await ask(lambda client: client.capsules.list())]
    assert (await ask(lambda client: client.capsules.get(made.uuid))).name == made.name
    await ask(lambda client: client.capsules.delete(made.uuid))
    image = await ask(lambda client: client.images.create(repo="busybox", host="host-1"), user="admin")
    await ask(lambda client: client.images.delete(image.uuid), user="admin")
    assert (await ask(lambda client: client.hosts.list(), user="admin"))[0].hostname == "host-1"
    assert (await ask(lambda client: client.services.list(), user="admin"))[0].binary == "zun-compute"
    await ask(lambda client: client.services.disable("host-1", "zun-compute", "why"), user="admin")
    await ask(lambda client: client.services.enable("host-1", "zun-compute"), user="admin")
    assert (await ask(lambda client: client.availability_zones.list()))[0].availability_zone == "nova"
    assert (await ask(lambda client: client.quotas.get("wonder", usages=False))).containers == 40
    changed = await ask(lambda client: client.quotas.update("wonder", containers=9), user="admin")
    assert changed.containers == 9
    registry = await ask(lambda client: client.registries.create(domain="reg.example", name="mine"))
    assert registry.registry["domain"] == "reg.example"  # the client keeps the wrapper
    await ask(lambda client: client.registries.delete("mine"))


async def test_a_refusal_is_read_by_the_client(ask: Ask, host: FakeHost) -> None:
    with pytest.raises(exceptions.Forbidden, match="Policy doesn't allow"):
        await ask(lambda client: client.hosts.list())
    with pytest.raises(exceptions.BadRequest, match="memory"):
        await ask(lambda client: client.containers.create(image="busybox", memory="1"))
