"""The legacy ``zun`` command, with ``openrc-token`` and nothing else: each of its sub-commands at least once."""

import asyncio
import http.server
import json
import os
import threading
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from zunclient.v1 import shell

from tests.api.screen import PATIENCE, Screen
from tests.engines.registry import Registry, open_registry
from tests.system.client import OpenStack, Outcome, succeeded
from tests.system.cloud import HigginsUp
from tests.system.rest import Rest
from tests.system.test_commands import Index, capsule_template, lost_host

__all__ = ["open_registry"]

TALKER = "echo first; trap 'echo caught' USR1; trap exit TERM; while sleep 0.1; do :; done"

#: The last version that has a call which later ones have not.
OLDER = {"rename": "1.13", "add-security-group": "1.14", "remove-security-group": "1.14"}
#: It wants a terminal, and has a test of its own.
IN_A_TERMINAL = {"attach"}


class Zun:
    """``zun`` as a tenant has it, and which of its sub-commands were tried."""

    def __init__(self, openstack: OpenStack) -> None:
        self._openstack = openstack
        self.tried: set[str] = set()

    def call(self, verb: str, *arguments: str) -> Outcome:
        self.tried.add(verb)
        version = ("--zun-api-version", OLDER[verb]) if verb in OLDER else ()
        return self._openstack.program("zun", *version, verb, *arguments)

    def __call__(self, verb: str, *arguments: str) -> str:
        """What it prints; it must succeed."""
        return succeeded(self.call(verb, *arguments)).out

    def refused(self, verb: str, *arguments: str) -> str:
        done = self.call(verb, *arguments)
        assert done.code != 0 or " failed: " in done.out, f"{verb}: {done}"
        return done.out + done.err

    def row(self, text: str, wanted: str) -> list[str]:
        """The cells of the row of a printed table that has ``wanted`` among them."""
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        found = [row for row in rows if wanted in row]
        assert found, f"no {wanted} in\n{text}"
        return found[0]


@pytest.fixture(scope="module")
def zun(cloud: HigginsUp) -> Iterator[Zun]:
    client = OpenStack(cloud.openrc("openrc-token"))
    yield Zun(client)
    client.close()


@pytest.fixture(scope="module")
def rest(cloud: HigginsUp) -> Rest:
    return Rest(cloud, "1.49")


@pytest.fixture
def box(openstack: OpenStack) -> Iterator[str]:
    """The name of a running container."""
    name = "legacy"
    openstack("run", "--name", name, "busybox", "sh", "-c", TALKER)
    openstack.wait(name, "Running")
    openstack.wait_for_log(name, "first")
    yield name
    openstack.delete([name, "legacy-made", "legacy-run", "legacy-renamed"])


def sub_commands() -> set[str]:
    """Those of the command that is installed."""
    names = {name for module in shell.COMMAND_MODULES for name in dir(module) if name.startswith("do_")}
    return {name.removeprefix("do_").replace("_", "-") for name in names}


def test_every_sub_command_does_its_work(
    zun: Zun, rest: Rest, openstack: OpenStack, cloud: HigginsUp, box: str, open_registry: Registry, tmp_path: Path
) -> None:
    host = openstack.show(box)["host"]
    life(zun, openstack, box)
    looking(zun, openstack, box, tmp_path)
    networks(zun, rest, openstack, box)
    images(zun, rest, open_registry, host)
    operating(zun, cloud, rest, host)
    quotas_and_registries(zun, rest)
    capsules(zun, openstack, rest, tmp_path)
    assert zun.tried | IN_A_TERMINAL == sub_commands()


def life(zun: Zun, openstack: OpenStack, box: str) -> None:
    zun("create", "--name", "legacy-made", "busybox", "true")
    openstack.wait("legacy-made", "Created")
    zun("run", "--name", "legacy-run", "busybox", "sh", "-c", "echo 'two  words'; exec sleep 1000")
    openstack.wait("legacy-run", "Running")
    openstack.wait_for_log("legacy-run", "two  words")
    zun("rename", "legacy-made", "legacy-renamed")
    assert openstack.status("legacy-made") is None
    zun("delete", "legacy-renamed")
    openstack.wait("legacy-renamed", None)
    zun("update", "--cpu", "0.5", box)
    assert openstack.show(box)["cpu"] == 0.5
    zun("pause", box)
    openstack.wait(box, "Paused")
    zun("unpause", box)
    openstack.wait(box, "Running")
    zun("kill", "--signal", "SIGUSR1", box)
    openstack.wait_for_log(box, "caught")
    zun("stop", "--timeout", "5", box)
    openstack.wait(box, "Stopped")
    zun("start", box)
    openstack.wait(box, "Running")
    before = openstack("exec", box, "cat", "/proc/1/stat")
    zun("restart", "--timeout", "5", box)
    openstack.wait_until(lambda: openstack.call("exec", box, "cat", "/proc/1/stat").out not in ("", before))
    openstack.wait(box, "Running")
    openstack("exec", box, "touch", "/scratch")
    zun("rebuild", box)
    openstack.wait_until(lambda: _is_anew(openstack.call("exec", box, "ls", "/")))
    openstack.wait(box, "Running")


def _is_anew(looked: Outcome) -> bool:
    return looked.code == 0 and "bin" in looked.out and "scratch" not in looked.out


def looking(zun: Zun, openstack: OpenStack, box: str, folder: Path) -> None:
    assert zun.row(zun("list"), box)[3] == "Running"
    shown = json.loads(zun("show", "-f", "json", box))
    assert (shown["name"], shown["status"]) == (box, "Running")
    openstack.wait_for_log(box, "first")
    assert "first" in zun("logs", box)
    assert "two  words" in zun("exec", box, "echo", "two  words")
    assert zun.row(zun("stats", box), "CONTAINER")[1] == box
    assert "unsupported operand" in zun.refused("top", box)  # it cannot print the answer on Python 3
    letter = folder / "letter"
    letter.write_text("Dear container,\n")
    zun("cp", str(letter), f"{box}:/tmp")
    zun("cp", f"{box}:/tmp/letter", str(folder / "out"))
    assert (folder / "out" / "letter").read_text() == letter.read_text()
    request = zun.row(zun("action-list", box), "create")[2]
    assert zun.row(zun("action-show", box, request), "action")[1] == "create"
    zun("commit", box, "legacy-mine:1")


def networks(zun: Zun, rest: Rest, openstack: OpenStack, box: str) -> None:
    made = rest.call("POST", "/networks", {"name": "legacy-second", "neutron_net_id": str(uuids.uuid4())})
    zun("network-attach", "--network", "legacy-second", box)
    zun.row(zun("network-list", box), made["uuid"])
    zun("network-detach", "--network", "legacy-second", box)
    openstack.wait_until(lambda: made["uuid"] not in zun("network-list", box))
    rest.wait_until(lambda: _done(rest, f"/networks/{made['uuid']}"), "the network goes")
    group = rest.call("POST", "/security_groups", {"name": "legacy-group"})["uuid"]
    zun("add-security-group", box, "legacy-group")
    assert group in openstack.show(box)["security_groups"]
    zun("remove-security-group", box, "legacy-group")
    assert group not in openstack.show(box)["security_groups"]
    rest.call("DELETE", f"/security_groups/{group}")


def _done(rest: Rest, path: str) -> bool:
    answer = rest.ask("DELETE", path)
    return answer is not None and answer.status < 300


def images(zun: Zun, rest: Rest, registry: Registry, host: str) -> None:
    image = zun.row(zun("pull", registry.image, host), "uuid")[1]
    zun.row(zun("image-list"), image)
    assert zun.row(zun("image-show", image), "host")[1] == host
    zun("image-delete", image)
    assert rest.ask("GET", f"/images/{image}").status == 404  # type: ignore[union-attr]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        assert "found" in zun("image-search", f"127.0.0.1:{index.server_port}/found")
        index.shutdown()


def operating(zun: Zun, cloud: HigginsUp, rest: Rest, host: str) -> None:
    assert "1.40" in zun("version-list")
    zone = next(one for one in rest.call("GET", "/services")["services"] if one["host"] == host)["availability_zone"]
    zun.row(zun("availability-zone-list"), zone)
    zun.row(zun("host-list"), host)
    assert zun.row(zun("host-show", host), "hostname")[1] == host
    with lost_host(cloud, rest, host, "legacy-lost") as lost:

        def service() -> Any:
            return next((one for one in rest.call("GET", "/services")["services"] if one["host"] == lost), None)

        zun.row(zun("service-list"), lost)
        zun("service-disable", "--reason", "why", lost, "zun-compute")
        assert service()["disabled_reason"] == "why"
        zun("service-enable", lost, "zun-compute")
        assert service()["disabled"] is False
        zun("service-force-down", lost, "zun-compute")
        assert service()["forced_down"] is True
        zun("service-delete", lost, "zun-compute")
        assert service() is None


def quotas_and_registries(zun: Zun, rest: Rest) -> None:
    limits = ("--containers", "7", "--memory", "700", "--cpu", "7", "--disk", "70")
    zun("quota-update", *limits, "somebodys")
    assert zun.row(zun("quota-get", "somebodys"), "containers")[1] == "7"
    zun("quota-delete", "somebodys")
    default = zun.row(zun("quota-defaults", "somebodys"), "containers")[1]
    assert rest.call("GET", "/quotas/somebodys")["containers"] == int(default)
    zun("quota-class-update", *limits, "legacy")
    assert zun.row(zun("quota-class-get", "legacy"), "containers")[1] == "7"
    zun("registry-create", "--name", "legacy", "--domain", "legacy.example", "--username", "me", "--password", "secret")
    zun.row(zun("registry-list"), "legacy.example")
    assert json.loads(zun("registry-show", "-f", "json", "legacy"))["registry"]["password"] == "***"
    zun("registry-update", "--domain", "other.example", "legacy")
    assert rest.call("GET", "/registries/legacy")["registry"]["domain"] == "other.example"
    zun("registry-delete", "legacy")
    assert rest.ask("GET", "/registries/legacy").status == 404  # type: ignore[union-attr]


def capsules(zun: Zun, openstack: OpenStack, rest: Rest, folder: Path) -> None:
    file = folder / "capsule.yaml"
    file.write_text(json.dumps(capsule_template("legacy-capsule")))
    zun("capsule-create", "-f", str(file))
    rest.wait_until(lambda: rest.call("GET", "/capsules/legacy-capsule")["status"] == "Running", "the capsule runs")
    zun.row(zun("capsule-list"), "legacy-capsule")
    assert json.loads(zun("capsule-describe", "-f", "json", "legacy-capsule"))["labels"] == {"app": "web"}
    zun("capsule-delete", "legacy-capsule")
    openstack.wait_until(lambda: rest.ask("GET", "/capsules/legacy-capsule").status == 404)  # type: ignore[union-attr]


async def test_attach_is_a_terminal(openstack: OpenStack, cloud: HigginsUp) -> None:
    name = "legacy-attach"
    openstack("create", "--name", name, "--interactive", "busybox", "sh", "-c", "read word; echo got $word")
    try:
        openstack.wait(name, "Created")
        openstack("start", name)
        openstack.wait(name, "Running")
        environment = cloud.openrc("openrc-token") | {
            "PYTHONWARNINGS": "ignore",
            "TERM": "xterm",
            "PATH": os.environ["PATH"],
        }
        async with Screen(environment, "zun", "attach", name) as screen:
            await screen.shows(b"connected to")
            await screen.answers(b"hello\n", b"got hello")
            async with asyncio.timeout(PATIENCE):
                assert await screen.process.wait() == 0, screen.shown
    finally:
        openstack.delete([name])


def test_openstack_takes_a_token_too(cloud: HigginsUp) -> None:
    for password, works in (({}, True), ({"OS_PASSWORD": "wrong"}, False)):
        client = OpenStack(cloud.openrc("openrc-token") | password)
        try:
            done = client.call("list")
        finally:
            client.close()
        assert (done.code == 0) is works and ("password is wrong" in done.err) is not works, done
