"""What engines do in different ways, and all may: it is noted, and shown in ``docs/engines-differences.md``."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from higgins.model.errors import ContainerGone, EngineError, NotImplementedHere
from higgins.runtimes.base import Runtime
from tests.contract.conftest import Note
from tests.contract.test_archives import entry, pieces, tar_of
from tests.contract.workloads import Workloads, observe, run, sh
from tests.engines import Engine
from tests.engines.seen import plain

#: linux/capability.h, as far as an engine gives them to a container by itself.
CAPABILITIES = {
    **dict(enumerate(("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"))),
    8: "SETPCAP",
    10: "NET_BIND_SERVICE",
    12: "NET_ADMIN",
    13: "NET_RAW",
    18: "SYS_CHROOT",
    21: "SYS_ADMIN",
    27: "MKNOD",
    29: "AUDIT_WRITE",
    31: "SETFCAP",
}


async def test_a_device_in_an_archive_is_refused_or_useless(runtime: Runtime, box: str, note: Note) -> None:
    disk = entry("noted-disk")
    disk.type, disk.devmajor, disk.devminor = b"4", 7, 0
    how = "is made, and cannot be opened"
    try:
        await runtime.put_archive(box, "/root", pieces(tar_of((disk, b""))))
    except EngineError:
        how = "the archive is refused"
    note("a device node in an archive that is put in", how)


async def test_a_hard_link_in_an_archive_is_the_same_file(runtime: Runtime, workloads: Workloads, note: Note) -> None:
    uuid = await workloads.start()
    link = entry("again", b"1", "word", mode=0o600)
    await runtime.put_archive(uuid, "/root", pieces(tar_of((entry("word", mode=0o644), b"said"), (link, b""))))
    assert await sh(runtime, uuid, "cat /root/again") == "said"
    mode = (await sh(runtime, uuid, "stat -c %a /root/word")).strip()
    note("the mode of a hard link in an archive", {"644": "its file's", "600": "is given to its file"}.get(mode, mode))


async def test_a_limit_of_disk_space_is_told_before_it_is_wanted(runtime: Runtime, note: Note) -> None:
    keeps = (await runtime.info()).disk_quota
    note("a `disk` limit", "the engine keeps to it" if keeps else "none here, and the scheduler reads that")


async def test_a_privileged_container_is_made_only_where_it_may_be(workloads: Workloads, note: Note) -> None:
    how = "in any sandbox"
    try:
        await workloads.create(privileged=True)
    except EngineError:
        how = "in a sandbox that is privileged too; the agent sees to it"
    note("a `privileged` container", how)


async def test_a_search_is_answered_or_refused(runtime: Runtime, note: Note) -> None:
    how = "as the engine does"
    try:
        await runtime.search("127.0.0.1:1/busybox")
    except NotImplementedHere:
        how = "501: there is no such call"
    except EngineError:
        pass  # there is no registry to ask
    note("`search`", how)


async def test_root_is_root_of_the_container_alone(runtime: Runtime, box: str, note: Note) -> None:
    inside, outside, count = (await sh(runtime, box, "cat /proc/1/uid_map")).split()
    assert inside == "0"
    note("users", "the host's" if outside == "0" else f"{count} of each sandbox's own")


async def test_what_a_container_may_as_root_is_little(runtime: Runtime, box: str, note: Note) -> None:
    (line,) = (await sh(runtime, box, "grep CapEff /proc/1/status")).splitlines()
    held = int(line.split()[1], 16)
    names = [CAPABILITIES.get(bit, str(bit)) for bit in range(held.bit_length()) if held >> bit & 1]
    note("capabilities", ", ".join(sorted(names)))


async def test_the_kernels_counters_are_masked_or_readable(runtime: Runtime, box: str, note: Note) -> None:
    size = (await sh(runtime, box, "head -c 1 /proc/interrupts | wc -c")).strip()
    note("`/proc/interrupts`, by which one container can watch another", "seen" if size == "1" else "masked")


async def test_shared_memory_is_bounded(runtime: Runtime, box: str, note: Note) -> None:
    (line,) = (await sh(runtime, box, "grep ' /dev/shm ' /proc/mounts")).splitlines()
    sizes = [option for option in line.split()[3].split(",") if option.startswith("size=")]
    assert sizes, "anyone could fill the host's memory"
    note("`/dev/shm`", sizes[0].removeprefix("size="))


async def test_few_variables_come_from_the_engine(runtime: Runtime, workloads: Workloads, note: Note) -> None:
    uuid = await workloads.start(environment={"OWN": "1"})
    told = (await sh(runtime, uuid, "tr '\\0' '\\n' < /proc/1/environ")).splitlines()
    names = {line.partition("=")[0] for line in told}
    assert {"OWN", "PATH"} <= names
    note("variables that the engine adds", ", ".join(sorted(names - {"OWN", "PATH"})) or "none")


async def test_a_directory_to_work_in_is_made(runtime: Runtime, workloads: Workloads, note: Note) -> None:
    how = "is made"
    try:
        uuid = await workloads.start(workdir="/there/is/none")
        assert (await sh(runtime, uuid, "readlink /proc/1/cwd")).strip() == "/there/is/none"
    except EngineError:
        how = "the start fails"
    note("a `workdir` that the image has not", how)


async def test_a_program_that_is_missing_is_told(runtime: Runtime, box: str, note: Note) -> None:
    try:
        code, _, _ = await run(runtime, box, "no-such-command")
        note("a command that is missing, in `execute`", f"exit code {code}")
    except EngineError as error:
        note("a command that is missing, in `execute`", plain(str(error)))


async def test_a_start_that_fails_is_told(runtime: Runtime, workloads: Workloads, note: Note) -> None:
    uuid = await workloads.create("no-such-command")
    with suppress(EngineError):
        await runtime.start(uuid)
    how = "gone"
    with suppress(ContainerGone):
        seen = await observe(runtime, uuid)
        how = seen.state if seen.exit_code is None else f"{seen.state}, exit code {seen.exit_code}"
    note("a container whose command is missing, after its start", how)


async def test_what_cannot_be_done_is_refused_with_a_sentence(
    engine: Engine, runtime: Runtime, workloads: Workloads, note: Note
) -> None:
    uuid = await workloads.create()
    refusals: dict[str, tuple[str, Callable[[], Awaitable[object]]]] = {
        "exec": ("`execute` in a container that does not run", lambda: runtime.exec(uuid, ("true",))),
        "attach": ("`attach` to a container that does not run", lambda: runtime.attach(uuid)),
        "stats": ("`stats` of a container that does not run", lambda: runtime.stats(uuid)),
        "top": ("`top` of a container that does not run", lambda: runtime.top(uuid, None)),
    }
    for verb, (what, ask) in refusals.items():
        if verb in engine.cannot:
            continue
        with pytest.raises(EngineError) as refused:
            await ask()
        said = plain(str(refused.value))
        assert said.endswith(".") and said[0].isupper(), said
        note(what, said)
