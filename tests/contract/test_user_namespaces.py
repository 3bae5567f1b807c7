"""Containers in user namespaces, where root of one is nobody on the host: all in one on Docker, each sandbox in its own
on containerd. (The whole contract is held to on that: ``containerd-users`` among its engines.)"""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from higgins.model.errors import EngineError
from higgins.runtimes.base import Bind, Runtime
from higgins.runtimes.cri import open_cri
from tests.contract.conftest import CHOSEN
from tests.contract.test_archives import entry, fetch, pieces, tar_of
from tests.contract.test_inside import has_every_capability
from tests.contract.workloads import SLEEP, Workloads, sh
from tests.engines import need
from tests.engines.containerd import USER_IDS, ContainerdEngine
from tests.engines.docker import DockerEngine
from tests.engines.images import BUSYBOX

FIRST = 231072  # the host's number of a container's root


@pytest.fixture(scope="module")
def engine(
    own_namespaces: None, busybox_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerEngine]:
    need("dockerd", "docker", "runc", "catatonit")
    if not Path("/proc/self/ns/user").exists():
        pytest.skip("this kernel has no user namespaces")
    ranges = tmp_path_factory.mktemp("users") / "ranges"
    ranges.write_text(f"nobody:{FIRST}:65536\n")
    root = Path(tempfile.mkdtemp(prefix="du"))
    for directory in (root, root.parent):  # root of a container has to come through, who is nobody here
        directory.chmod(directory.stat().st_mode | 0o011)
    files = ("/etc/subuid", "/etc/subgid")
    for file in files:  # seen by the tests alone, which have mounts of their own
        subprocess.run(["mount", "--bind", str(ranges), file], check=True)
    made = DockerEngine(root, "--userns-remap=nobody:nogroup")
    try:
        made.start()
        made.command("load", "--input", str(busybox_archive))
        yield made
        made.close()
    finally:
        made.kill()
        for file in files:
            subprocess.run(["umount", file], check=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def runtime(engine: DockerEngine) -> AsyncIterator[Runtime]:
    driver = await engine.open()
    yield driver
    await driver.close()


@pytest.fixture
async def apart(request: pytest.FixtureRequest) -> AsyncIterator[Runtime]:
    """A driver that gives each sandbox a user namespace."""
    if "containerd-users" not in CHOSEN:
        pytest.skip("no engine with user namespaces of each sandbox is among HIGGINS_ENGINES")
    users: ContainerdEngine = request.getfixturevalue("containerd_users")
    driver = await users.open()
    yield driver
    await driver.close()


async def test_each_sandbox_has_users_of_its_own_and_volumes_belong_to_the_same_inside_and_outside(
    apart: Runtime, tmp_path: Path
) -> None:
    work = Workloads(apart, BUSYBOX)
    sandboxes = [await work.sandbox() for _ in range(2)]
    try:
        seen = set()
        for number, sandbox in enumerate(sandboxes):
            volume = tmp_path / str(number)
            volume.mkdir(mode=0o700)
            bind = Bind(source=str(volume), destination="/volume")
            uuid = await work.start(*SLEEP, sandbox=sandbox, binds=(bind,))
            inside, first, count = (await sh(apart, uuid, "cat /proc/1/uid_map")).split()
            assert (inside, count) == ("0", "65536")
            seen.add(int(first))
            await sh(apart, uuid, "id -u | grep -qx 0; echo kept > /volume/word; echo kept > /root/word")
            assert (volume / "word").stat().st_uid == 0
            await apart.put_archive(uuid, "/root", pieces(tar_of((entry("put"), b"put in"))))
            assert await sh(apart, uuid, "stat -c %u /root/put") == "0\n"
            _, tar = await fetch(apart, uuid, "/root/word")
            assert tar.getmembers()[0].uid == 0
            await apart.stop(uuid, 0)
            await apart.start(uuid)
            assert await sh(apart, uuid, "cat /root/word; stat -c %u /root/word /volume/word") == "kept\n0\n0\n"
        assert len(seen) == 2
        assert all(first >= int(USER_IDS.partition(":")[0]) for first in seen)
    finally:
        for sandbox in sandboxes:
            await apart.remove_sandbox(sandbox)


async def test_an_engine_without_user_namespaces_is_refused_where_they_are_wanted(
    containerd_engine: ContainerdEngine,
) -> None:
    driver = open_cri(containerd_engine.endpoint, logs=containerd_engine.root / "logs", user_ids=USER_IDS)
    try:
        if "" in (await driver._client.handlers()).user_namespaces:  # type: ignore[attr-defined]
            pytest.skip("the containerd of this machine has user namespaces")
        with pytest.raises(EngineError, match="user_ids"):
            await driver.info()
    finally:
        await driver.close()


def host_user(pid: int) -> int:
    """As whom a process runs, as the host numbers users."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])


def pid(engine: DockerEngine, uuid: str) -> int:
    return int(engine.command("inspect", "--format", "{{.State.Pid}}", f"higgins-{uuid}-1"))


async def test_root_of_a_container_is_nobody_on_the_host(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    private = engine.root / "private"  # as that of volumes is
    private.mkdir(mode=0o700)
    hosts = private / "hosts"
    hosts.write_text("127.0.0.1 here\n")
    bind = Bind(source=str(hosts), destination="/etc/hosts", read_only=True)
    sandbox = await workloads.sandbox()
    uuid = await workloads.start(*SLEEP, sandbox=sandbox, binds=(bind,))
    assert (await sh(runtime, uuid, "id -u")).strip() == "0"
    assert host_user(pid(engine, uuid)) == FIRST
    (seen,) = (await runtime.list(sandbox)).sandboxes
    assert Path(seen.netns).samefile(f"/proc/{pid(engine, uuid)}/ns/net")
    assert "here" in await sh(runtime, uuid, "cat /etc/hosts; echo kept > /root/file")
    await runtime.stop(uuid, 0)
    await runtime.start(uuid)
    assert await sh(runtime, uuid, "cat /root/file") == "kept\n"
    await runtime.remove_sandbox(sandbox)
    assert not (await runtime.list(sandbox)).containers


async def test_a_privileged_container_is_taken_and_is_roots_own(
    engine: DockerEngine, runtime: Runtime, workloads: Workloads
) -> None:
    uuid = await workloads.create(privileged=True)  # the engine refuses one in the user namespace here
    if not has_every_capability():
        pytest.skip("this machine withholds capabilities that privileged means")
    await runtime.start(uuid)
    assert host_user(pid(engine, uuid)) == 0
