"""A Docker Engine that keeps all containers in a user namespace: root of a container is nobody on the host."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from higgins.runtimes.base import Bind, Runtime
from tests.contract.test_inside import has_every_capability
from tests.contract.workloads import SLEEP, Workloads, sh
from tests.engines import need
from tests.engines.docker import DockerEngine

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
