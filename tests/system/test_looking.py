"""Looking into containers and lists, by the unmodified client."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.client import OpenStack
from tests.system.cloud import HigginsUp

TALKER = "echo first; echo oops >&2; sleep 1; echo last; exec sleep 1000"


@pytest.fixture(scope="module")
def talker(openstack: OpenStack) -> Iterator[str]:
    """A running container that has said its words; its name. Nothing here changes it."""
    openstack("run", "--name", "talker", "--label", "tier=web", "busybox", "sh", "-c", TALKER)
    openstack.wait("talker", "Running")
    openstack.wait_for_log("talker", "last")
    yield "talker"
    openstack.delete(["talker"])


def test_logs_can_be_cut_by_stream_by_number_and_by_time(openstack: OpenStack, talker: str) -> None:
    assert set(openstack("logs", talker).split()) == {"first", "oops", "last"}
    assert openstack("logs", "--stdout", talker).split() == ["first", "last"]
    assert openstack("logs", "--stderr", talker).split() == ["oops"]
    assert openstack("logs", "--tail", "1", "--stdout", talker).split() == ["last"]
    stamped = openstack("logs", "--timestamps", "--stdout", "--tail", "1", talker).split()
    assert stamped[1:] == ["last"] and stamped[0].startswith("20") and "T" in stamped[0]
    assert openstack("logs", "--since", str(int(time.time()) + 3600), talker).split() == []
    assert "first" in openstack("logs", "--since", str(int(time.time()) - 3600), talker)


def test_exec_gives_output_and_exit_code(openstack: OpenStack, talker: str) -> None:
    assert openstack("exec", talker, "echo", "two words").strip() == "two words"
    failed = openstack.call("exec", talker, "sh", "-c", "echo to stderr >&2; exit 3")
    assert failed.code == 3 and "to stderr" in failed.out


def test_stats_have_the_seven_figures(openstack: OpenStack, talker: str) -> None:
    stats = openstack.json("stats", talker)
    assert stats["CONTAINER"] == talker
    assert stats["MEM USAGE(MiB)"] > 0
    assert stats["MEM LIMIT(MiB)"] == pytest.approx(512)
    assert set(stats) >= {"CPU %", "MEM %", "BLOCK I/O(B)", "NET I/O(B)"}


def test_top_lists_the_processes(openstack: OpenStack, cloud: HigginsUp, talker: str) -> None:
    # The client asks well and then fails to print the answer on any Python 3 (python-zunclient's TopContainer does
    # print("%-20s") % title): so far as it gets, and then what its request is answered.
    assert "%-20s" in openstack.call("top", talker).out
    answer = cloud.get(f"/containers/{talker}/top?ps_args=None")
    assert any("sleep 1000" in " ".join(process) for process in answer["Processes"])
    assert all(len(process) == len(answer["Titles"]) for process in answer["Processes"])


def test_cp_brings_files_in_and_out(openstack: OpenStack, talker: str, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(bytes(range(256)) * 40)
    openstack("cp", str(letter), f"{talker}:/tmp")
    assert openstack("exec", talker, "wc", "-c", "/tmp/letter.txt").split()[0] == "10240"
    out = tmp_path / "out"
    out.mkdir()
    openstack("cp", f"{talker}:/tmp/letter.txt", str(out))
    assert (out / "letter.txt").read_bytes() == letter.read_bytes()


def test_network_list_shows_the_address_that_show_has(openstack: OpenStack, cloud: HigginsUp, talker: str) -> None:
    # Here too the client asks well, and then gives osc-lib a formatter of a kind that this has not taken since 4.0.
    done = openstack.call("network", "list", talker)
    assert done.code == 0 or done.err.strip() == "Invalid formatter provided.", done
    [port] = cloud.get(f"/containers/{talker}/network_list")["networks"]
    assert [fixed["ip_address"] for fixed in port["fixed_ips"]] == [openstack.show(talker)["addresses"]]
    assert port["net_id"] and port["port_id"]


def test_action_list_and_show_tell_who_asked_for_what(openstack: OpenStack, talker: str) -> None:
    listed = openstack.json("action", "list", talker)
    create = next(action for action in listed if action["action"] == "create")
    assert create["container_uuid"] == openstack.show(talker)["uuid"] and create["message"] is None
    shown = openstack.json("action", "show", talker, create["request_id"])
    assert shown["action"] == "create" and shown["finish_time"] is not None


def test_hosts_services_and_zones_are_listed(openstack: OpenStack, cloud: HigginsUp, talker: str) -> None:
    [host] = openstack.json("host", "list")
    shown = openstack.json("host", "show", host["hostname"])
    assert shown["uuid"] == host["uuid"] and int(shown["total_containers"]) >= 1
    service = next(each for each in openstack.json("service", "list") if each["Host"] == host["hostname"])
    assert service["State"] == "up"
    zones = openstack.json("availability", "zone", "list")
    assert [zone["availability_zone"] for zone in zones] == [service["Availability Zone"]]


def test_list_filters_sorts_and_pages(openstack: OpenStack, talker: str) -> None:
    quiet = ["quiet-a", "quiet-b", "quiet-c"]
    try:
        for name in quiet:
            openstack("create", "--name", name, "busybox", "true")
        for name in quiet:
            openstack.wait(name, "Created")
        uuids = {row["name"]: row["uuid"] for row in openstack.json("list")}
        assert {talker, *quiet} <= set(uuids)

        def names(*arguments: str) -> list[str]:
            return [row["name"] for row in openstack.json("list", *arguments)]

        assert names("--name", "quiet-b") == ["quiet-b"]
        assert names("--status", "Running") == [talker]
        assert names("--image", "no-such-image") == []
        assert set(names("--memory", "512")) == {talker, *quiet}
        assert names("--sort-key", "name", "--sort-dir", "desc", "--status", "Created") == quiet[::-1]
        assert names("--limit", "2", "--sort-key", "name") == quiet[:2]
        assert names("--limit", "2", "--sort-key", "name", "--marker", uuids["quiet-b"]) == ["quiet-c", talker]
        assert names("--all-projects", "--name", talker) == [talker]
        assert names("--project-id", "somebody-else", "--all-projects") == []
    finally:
        openstack.delete(quiet)
