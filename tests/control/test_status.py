"""What an operator is told of a cloud, and the commands that tell it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from higgins import __version__
from higgins.cli import drain as drain_command
from higgins.cli import main
from higgins.cli.cores import NoSuchCores, cores, parse, split
from higgins.cli.status import duration, table, told
from higgins.control import containers, evacuation, hosts, status
from higgins.control.cloud import Actor, Cloud
from higgins.control.evacuation import Round, Staying
from higgins.model.container import RestartPolicy
from higgins.model.resources import HostInfo
from higgins.store.database import make_engine
from higgins.store.migrate import head, migrate
from higgins.store.schema import schema_floor
from tests.control.conftest import Host, draft, report


async def test_hosts_and_containers_are_told_at_a_glance(cloud: Cloud, host: Host, alice: Actor) -> None:
    made = await containers.create(cloud, alice, draft(memory=64), run=True)
    await host.says(made.uuid, state="running")
    await containers.create(cloud, alice, draft(memory=64), run=True)
    await hosts.register(cloud, report("two", info=HostInfo(engine="docker", engine_version="20", version=__version__)))
    await hosts.disable(cloud, "two", hosts.BINARY, None)
    found = await status.report(cloud)
    one, two = found.hosts
    assert (one.name, one.state, one.containers, one.memory_used, one.waiting, one.tenant) == (
        "one", "up", 2, 128, 1, "red",
    )  # fmt: skip
    assert (two.state, two.engine, two.version, two.tenant) == ("up, disabled", "docker 20", __version__, None)
    assert (found.statuses, found.backlog, found.moving) == ({"Running": 1, "Creating": 1}, 1, 0)
    assert (found.stuck, found.differences) == ([], [])
    assert found.database.endswith(f"revision {head()}")
    assert "up, disabled" in told(found)


async def test_what_is_stuck_is_told_with_the_reason(cloud: Cloud, host: Host, alice: Actor) -> None:
    silent = await containers.create(cloud, alice, draft("silent", memory=64), run=True)
    nowhere = await containers.create(cloud, alice, draft("nowhere", memory=20000), run=True)
    leaving = await containers.create(cloud, alice, draft("leaving", restart_policy=RestartPolicy("always")), run=True)
    await host.says(leaving.uuid, state="running")
    await hosts.register(cloud, report("two"))
    await evacuation.drain(cloud, "one")
    cloud.now.forward(cloud.settings.stuck_after - 1)  # type: ignore[attr-defined]
    await hosts.seen(cloud, host.number)
    assert [one.name for one in (await status.report(cloud)).stuck] == ["nowhere"]
    cloud.now.forward(2)  # type: ignore[attr-defined]
    found = await status.report(cloud)
    assert {one.uuid: one.reason for one in found.stuck} == {
        silent.uuid: "host one has not settled generation 1",
        nowhere.uuid: "There are not enough hosts available. one: it has too little memory left",
        leaving.uuid: "host one has not let go of it yet",
    }
    assert (found.stuck_total, found.moving) == (3, 1)
    cloud.now.forward(3600)  # type: ignore[attr-defined]
    reasons = {one.name: one.reason for one in (await status.report(cloud)).stuck}
    assert reasons["silent"] == "host one does not answer"
    results = {one.name: one.result for one in await status.upgrade_checks(cloud)}
    assert results == {
        "Database revision": "Success",
        "Hosts answer": "Warning",
        "Agents' versions": "Warning",
        "Nothing is stuck": "Warning",
        "Tenant isolation": "Success",
        "Claims and quotas add up": "Success",
    }


async def test_figures_sum_up_the_hosts_that_take_workloads(cloud: Cloud, host: Host, alice: Actor) -> None:
    assert (await status.fleet_figures(cloud)).claimed["memory"] == 0
    await containers.create(cloud, alice, draft(memory=64, cpu=0.5), run=True)
    await hosts.register(cloud, report("two"))
    await hosts.disable(cloud, "two", hosts.BINARY, None)
    found = await status.fleet_figures(cloud)
    assert found.states == {"up": 2, "down": 0, "disabled": 1, "draining": 0}
    assert found.capacity == {"cpu": 64, "memory": 12288, "disk": 200, "dedicated_cpus": 0}
    assert found.claimed == {"cpu": 0.5, "memory": 64, "disk": 0, "dedicated_cpus": 0}
    cloud.now.forward(3600)  # type: ignore[attr-defined]
    found = await status.fleet_figures(cloud)
    assert (found.states["down"], found.capacity["cpu"], found.moving) == (2, 0, 0)


Command = Callable[..., int]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def higgins(data: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, on a database of its own."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["higgins", *arguments, "--data", str(data)])
        return main.main()

    return run


def test_a_database_of_another_version_is_told_and_left_alone(
    higgins: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert higgins("status") == 1
    assert "run higgins db upgrade" in capsys.readouterr().err
    assert higgins("status", "upgrade", "check") == 2
    assert f"this version needs {head()}" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "again"), [("0013", "cannot be started again"), ("0014", "can be started again")])
def test_the_upgrade_check_tells_whether_processes_can_be_started_again_on_the_new_tables(
    higgins: Command, data: Path, capsys: pytest.CaptureFixture[str], before: str, again: str
) -> None:
    engine = make_engine(f"sqlite:///{data / 'higgins.db'}")
    migrate(engine, before)
    engine.dispose()
    assert higgins("status", "upgrade", "check") == 2
    assert again in capsys.readouterr().out


def test_on_tables_of_a_newer_release_the_upgrade_check_tells_whether_this_one_gets_by(
    higgins: Command, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine(f"sqlite:///{data / 'higgins.db'}")
    migrate(engine)
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '9000'"))
    assert higgins("status", "upgrade", "check") == 1
    assert "9000, made by a newer version" in capsys.readouterr().out
    assert higgins("status") == 0
    with engine.begin() as conn:
        conn.execute(sa.update(schema_floor).values(revision="9000"))
    engine.dispose()
    assert higgins("status", "upgrade", "check") == 2
    assert "takes one that knows revision 9000" in capsys.readouterr().out
    for command in (("status",), ("db", "upgrade"), ("host", "drain", "one")):
        capsys.readouterr()
        assert higgins(*command) == 1
        assert "takes one that knows revision 9000" in capsys.readouterr().err


def test_an_empty_cloud_has_nothing_to_tell(higgins: Command, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = make_engine(f"sqlite:///{data / 'higgins.db'}")
    migrate(engine)
    engine.dispose()
    assert higgins("status") == 0
    assert "No host has joined." in capsys.readouterr().out
    assert higgins("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["hosts"] == []
    assert higgins("status", "upgrade", "check") == 0
    assert "Database revision" in capsys.readouterr().out
    for verb in ("drain", "undrain"):
        assert higgins("host", verb, "one") == 1
        assert "Host one could not be found." in capsys.readouterr().err


def test_a_drain_tells_what_stays() -> None:
    done = Round(moving=["a", "b"], staying=[Staying("c", "db", "its volume lies here")])
    assert drain_command.told("one", done).splitlines() == [
        "Host one is drained: 2 workloads leave it, 1 stay.",
        "  stays  c  db: its volume lies here",
    ]


def test_columns_are_below_one_another() -> None:
    assert table(("A", "B"), [("long", "x"), ("y", "")]) == ["A     B", "long  x", "y"]
    assert duration(90.9) == "0:01:30"


def test_cores_are_read_as_the_kernel_writes_them() -> None:
    assert parse("") == frozenset()
    assert parse("0-2, 7\n") == {0, 1, 2, 7}
    for bad in ("a", "1-", "1-b"):
        with pytest.raises(NoSuchCores):
            parse(bad)


def test_dedicated_cores_are_told_by_node_and_some_are_left_for_the_others(tmp_path: Path) -> None:
    online = frozenset(range(8))
    nodes = [frozenset(range(4)), frozenset(range(4, 8))]
    assert split(frozenset({2, 3, 5}), online, nodes) == (((2, 3), (5,)), (0, 1, 4, 6, 7))
    assert split(frozenset({5}), online, [frozenset({0})]) == (((5,),), (0, 1, 2, 3, 4, 6, 7))
    with pytest.raises(NoSuchCores, match="has no core 9"):
        split(frozenset({9}), online, nodes)
    with pytest.raises(NoSuchCores, match="must be left"):
        split(online, online, nodes)
    for path, text in (("cpu/online", "0-3"), ("node/node1/cpulist", "2-3"), ("node/node0/cpulist", "0-1")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert cores("1-2", tmp_path) == (((1,), (2,)), (0, 3))
    assert cores("", tmp_path) == ((), ())
