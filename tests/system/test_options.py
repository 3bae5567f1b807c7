"""Every option of ``create`` that needs no OpenStack service does what it says, inside the container too."""

from pathlib import Path

from tests.system.client import OpenStack
from tests.system.conftest import Naming

IDLE = ("sh", "-c", "trap exit TERM; while sleep 0.1; do :; done")


def test_what_the_program_sees_is_what_was_asked_for(openstack: OpenStack, named: Naming) -> None:
    name = named("options")
    openstack(
        *("create", "--name", name, "--hostname", "box", "--workdir", "/tmp", "--label", "tier=web", "--cpu", "0.3"),
        *("--memory", "96", "--environment", "COLOUR=green", "--environment", "SHAPE=a=b", "--interactive"),
        *("--image-pull-policy", "ifnotpresent", "--expose-port", "80/tcp", "--availability-zone", zone(openstack)),
        *("--host", host(openstack), "--hint", "group=alpha", "--entrypoint", "sh -c", "busybox"),
        "trap exit TERM; while sleep 0.1; do :; done",
    )
    openstack.wait(name, "Created")
    openstack("start", name)
    shown = openstack.wait(name, "Running")
    assert shown["labels"] == {"tier": "web"} and shown["environment"] == {"COLOUR": "green", "SHAPE": "a=b"}
    assert (shown["cpu"], shown["memory"], shown["workdir"], shown["hostname"]) == (0.3, "96", "/tmp", "box")
    assert (shown["interactive"], shown["tty"], shown["ports"], shown["host"]) == (True, True, [80], host(openstack))
    assert shown["entrypoint"] == ["sh", "-c"] and shown["image_pull_policy"] == "ifnotpresent"
    seen = openstack("exec", name, "sh", "-c", "echo $COLOUR $SHAPE $(hostname) $(cat /proc/1/cwd/../etc/hostname)")
    assert seen.split()[:3] == ["green", "a=b", "box"]
    limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert openstack("exec", name, "sh", "-c", limit).strip() == str(96 * 2**20)


def test_a_sized_volume_and_a_file_are_mounted(openstack: OpenStack, named: Naming, tmp_path: Path) -> None:
    name = named("mounts")
    settings = tmp_path / "settings.ini"
    settings.write_text("[cloud]\nname = higgins\n")
    openstack(
        *("run", "--name", name, "--mount", "size=1,destination=/data"),
        *("--mount", f"type=bind,source={settings},destination=/etc/settings.ini", "busybox", *IDLE),
    )
    openstack.wait(name, "Running")
    assert "name = higgins" in openstack("exec", name, "cat", "/etc/settings.ini")
    size = openstack("exec", name, "sh", "-c", "echo kept > /data/note; df -k /data | tail -n 1").split()
    assert 2**19 < int(size[1]) <= 2**20
    openstack("rebuild", name)
    openstack.wait_until(lambda: openstack.call("exec", name, "cat", "/data/note").out.strip() == "kept")


def test_a_named_volume_outlives_its_container(openstack: OpenStack, named: Naming) -> None:
    first, second = named("first"), named("second")
    mount = f"source=kept-{first},size=1,destination=/data"
    openstack("run", "--name", first, "--mount", mount, "busybox", *IDLE)
    openstack.wait(first, "Running")
    openstack("exec", first, "sh", "-c", "echo for the next > /data/note")
    openstack.delete([first])
    openstack("run", "--name", second, "--mount", mount, "busybox", *IDLE)
    openstack.wait(second, "Running")
    assert openstack("exec", second, "cat", "/data/note").strip() == "for the next"


def test_neighbours_of_a_project_reach_each_other_by_name(openstack: OpenStack, named: Naming) -> None:
    server, visitor = named("server"), named("visitor")
    openstack("run", "--name", server, "busybox", "sh", "-c", "exec httpd -f -p 80 -h /etc")
    openstack("run", "--name", visitor, "busybox", *IDLE)
    openstack.wait(server, "Running")
    openstack.wait(visitor, "Running")
    fetch = ("exec", visitor, "timeout", "5", "wget", "-q", "-O", "-", f"http://{server}/passwd")
    openstack.wait_until(lambda: "root:" in openstack.call(*fetch).out)


def test_a_failing_healthcheck_with_auto_heal_starts_it_again(openstack: OpenStack, named: Naming) -> None:
    name = named("heal")
    openstack(
        *("run", "--name", name, "--auto-heal", "--healthcheck", "cmd=test ! -e /tmp/ill,interval=1s,retries=1"),
        *("busybox", "sh", "-c", "echo born; rm -f /tmp/ill; trap exit TERM; while sleep 0.1; do :; done"),
    )
    openstack.wait(name, "Running")
    openstack.wait_for_log(name, "born")
    openstack("exec", name, "touch", "/tmp/ill")
    openstack.wait_until(
        lambda: openstack.call("exec", name, "sh", "-c", "test ! -e /tmp/ill && echo well").out.strip() == "well"
    )
    openstack.wait(name, "Running")


def host(openstack: OpenStack) -> str:
    return str(openstack.json("host", "list")[0]["hostname"])


def zone(openstack: OpenStack) -> str:
    return str(openstack.json("availability", "zone", "list")[0]["availability_zone"])
