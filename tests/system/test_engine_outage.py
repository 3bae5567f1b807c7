"""The engine goes away, comes back, has no room, or never answers: nothing is lost, and everybody is told."""

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.docker import DockerEngine, running_docker
from tests.system.behind import BehindDocker
from tests.system.client import PATIENCE
from tests.system.cloud import HigginsUp
from tests.system.launcher import Launcher
from tests.system.rest import LOOK_EVERY, Rest
from tests.system.stage import Stage, in_place_of
from tests.system.traces import left_over, traces

IDLE = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")


@contextlib.contextmanager
def watching(rest: Rest, names: list[str]) -> Iterator[dict[str, set[str]]]:
    """Every status that the containers are shown in meanwhile, by name."""
    seen: dict[str, set[str]] = {name: set() for name in names}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            for name in names:
                shown = rest.show(name)
                seen[name].add(shown["status"] if shown else "gone")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.fixture
def rest(stage: Stage) -> Rest:
    return Rest(stage.up)


# away and back


def test_an_engine_that_restarts_under_load_loses_nothing(stage: Stage, rest: Rest) -> None:
    before = traces(stage.up, stage.behind)
    stay, go, come = ([f"{stem}-{number}" for number in range(4)] for stem in ("stay", "go", "come"))
    try:
        for name in (*stay, *go):
            rest.run(name, *IDLE)
        for name in (*stay, *go):
            rest.settled(name, "Running")
        pids = {name: stage.behind.pid(rest.call("GET", f"/containers/{name}")["uuid"]) for name in stay}
        with watching(rest, stay) as seen:
            for number in range(4):
                rest.run(come[number], *IDLE)
                rest.call("DELETE", f"/containers/{go[number]}?force=true")
                if number in (0, 2):
                    stage.behind.engine.kill()
                    stage.behind.engine.start()
            rest.gone(*go)
            for name in come:
                rest.settled(name, "Running")
                assert rest.execute(name, "echo here") == (0, "here\n")
        assert seen == {name: {"Running"} for name in stay}
        assert {name: stage.behind.pid(rest.call("GET", f"/containers/{name}")["uuid"]) for name in stay} == pids
    finally:
        rest.delete(*stay, *go, *come)
    assert not left_over(stage.up, stage.behind, before)


def test_while_the_engine_is_away_requests_are_taken_and_done_later(stage: Stage, rest: Rest) -> None:
    try:
        rest.run("away-stop", *IDLE)
        rest.settled("away-stop", "Running")
        stage.behind.engine.kill()
        rest.call("POST", "/containers/away-stop/stop?timeout=5")
        rest.run("away-create", *IDLE)
        refused = rest.ask("GET", "/containers/away-stop/logs")
        assert refused is not None and refused.status == 503 and "does not answer" in refused.sentence
        assert {one["status"] for one in rest.call("GET", "/containers")["containers"]} <= {"Running", "Creating"}
        stage.behind.engine.start()
        rest.settled("away-stop", "Stopped")
        rest.settled("away-create", "Running")
    finally:
        rest.delete("away-stop", "away-create")


@pytest.fixture
def fragile(cloud: HigginsUp, busybox_archive: Path, launcher: Launcher) -> Iterator[Stage]:
    """Docker as it comes: containers end with the engine."""
    with (
        running_docker(busybox_archive, live_restore=False) as engine,
        in_place_of(cloud, engine.options, launcher) as up,
    ):
        yield Stage(up, BehindDocker(engine))


def test_without_live_restore_what_went_down_with_the_engine_runs_again(fragile: Stage) -> None:
    rest = Rest(fragile.up)
    rest.run("once", *IDLE)
    rest.run("always", *IDLE, restart_policy={"Name": "always"})
    rest.run("stopped", *IDLE)
    for name in ("once", "always", "stopped"):
        rest.settled(name, "Running")
    rest.call("POST", "/containers/stopped/stop?timeout=5")
    rest.settled("stopped", "Stopped")
    fragile.behind.engine.kill()
    fragile.behind.engine.start()
    for name in ("once", "always"):
        rest.wait(name, lambda now: now is not None and runs(rest, now["name"]), "ran again")
        rest.settled(name, "Running")
    rest.settled("stopped", "Stopped")
    rest.delete("once", "always", "stopped")


def runs(rest: Rest, name: str) -> bool:
    """Whether something can be run inside."""
    answer = rest.ask("POST", f"/containers/{name}/execute?command=true&run=true&interactive=false")
    return answer is not None and answer.status == 200 and answer.body["exit_code"] == 0


# not there at all


def words_of_a_refused_start(tmp_path: Path, *options: str) -> str:
    """What ``higgins up`` says; it must end by itself, with 1."""
    command = [sys.executable, "-m", "higgins.cli.main", "up", "--data", str(tmp_path), "--listen", "127.0.0.1:0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_an_engine_that_is_not_there_is_named_to_the_operator(tmp_path: Path) -> None:
    docker, cri = f"unix://{tmp_path}/docker.sock", f"unix://{tmp_path}/cri.sock"
    options = ("--docker-url", docker, "--cri-endpoint", cri)
    assert "Neither containerd nor Docker nor Podman answers" in words_of_a_refused_start(tmp_path, *options)
    for runtime, place in (("docker", docker), ("cri", cri)):
        said = words_of_a_refused_start(tmp_path, *options, "--runtime", runtime)
        assert place in said and "Is it running?" in said, said


@pytest.mark.parametrize("runtime", ["docker", "cri"])
def test_what_listens_and_never_answers_is_named_to_the_operator(tmp_path: Path, runtime: str) -> None:
    option = {"docker": "--docker-url", "cri": "--cri-endpoint"}[runtime]
    with silent() as port:
        url = f"{'tcp' if runtime == 'docker' else 'dns'}://127.0.0.1:{port}"
        said = words_of_a_refused_start(tmp_path, "--runtime", runtime, option, url)
    assert f"127.0.0.1:{port}" in said and "does not answer" in said, said


# images and commands


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield int(server.getsockname()[1])


def test_a_pull_that_hangs_is_told_keeps_nobody_waiting_and_can_be_given_up(stage: Stage, rest: Rest) -> None:
    hanging = [f"hanging-{number}" for number in range(20)]
    try:
        with silent() as port:
            for name in hanging:
                rest.run(name, "true", image=f"127.0.0.1:{port}/{name}:1", cpu=0.1)
            rest.wait(hanging[0], lambda now: now is not None and now["task_state"] == "image_pulling", "was pulling")
            rest.run("prompt", *IDLE)
            rest.settled("prompt", "Running")
            rest.delete(*hanging[1:])
            now = rest.wait(hanging[0], lambda now: bool(now and now["status_reason"]), "said why it hangs")
            assert f"127.0.0.1:{port}/hanging-0:1" in now["status_reason"], now
            rest.delete(hanging[0])
    finally:
        rest.delete("prompt", *hanging)


def test_an_image_or_command_that_is_not_there_is_named_to_the_tenant(rest: Rest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()[1]
    wishes: dict[str, tuple[dict[str, Any], list[str], str]] = {
        "no-image": ({"image": "no-such-image", "image_pull_policy": "never"}, ["true"], "no-such-image"),
        "no-registry": ({"image": f"127.0.0.1:{nobody}/what:1"}, ["true"], f"127.0.0.1:{nobody}/what:1"),
        "no-command": ({}, ["no-such-command"], "no-such-command"),
        "no-program": ({}, ["/etc/passwd"], "/etc/passwd"),
    }
    try:
        for name, (fields, command, _) in wishes.items():
            rest.run(name, *command, **fields)
        for name, (_, _, word) in wishes.items():
            now = rest.wait(name, lambda now: now is not None and now["status"] == "Error", "came into Error")
            assert word in now["status_reason"], now
            assert not any(jargon in now["status_reason"] for jargon in ("OCI", "runc", "Traceback")), now
    finally:
        rest.delete(*wishes)


# no room


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """A file system of so few bytes at ``place``."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def full(directory: Path) -> Iterator[None]:
    """No byte is left on the disk of this directory."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


def test_a_volume_that_finds_no_room_is_told_and_made_once_there_is(stage: Stage, rest: Rest) -> None:
    volumes = stage.up.data / "volumes"
    with small_disk(volumes, "64m"):
        try:
            with full(volumes):
                rest.run("roomy", *IDLE, mounts=[{"size": 1, "destination": "/data"}])
                now = rest.wait("roomy", lambda now: now is not None and now["status"] == "Error", "came into Error")
                assert "disk of its host is full" in now["status_reason"], now
            now = rest.settled("roomy", "Running")
            assert now["status_reason"] is None
        finally:
            rest.delete("roomy")
            rest.wait_until(lambda: not any(volumes.iterdir()), "its volume was deleted")


def test_a_full_disk_of_the_engine_is_told_and_a_start_helps_once_there_is_room(
    cloud: HigginsUp, busybox_archive: Path, launcher: Launcher
) -> None:
    root = Path(tempfile.mkdtemp(prefix="sm"))
    with (
        small_disk(root, "128m"),
        running_docker(busybox_archive, root) as engine,
        in_place_of(cloud, engine.options, launcher) as up,
    ):
        rest = Rest(up)
        rest.run("before", *IDLE)
        rest.settled("before", "Running")
        with full(root):
            rest.run("squeezed", *IDLE)
            now = rest.wait("squeezed", lambda now: bool(now and now["status_reason"]), "said what is wrong")
            assert "no space left on device" in now["status_reason"].lower(), now
            assert (rest.show("before") or {})["status"] == "Running"
        rest.wait("squeezed", lambda now: now is not None and tried_again(rest, now), "ran")
        rest.delete("before", "squeezed")
    root.rmdir()


def tried_again(rest: Rest, shown: dict[str, object]) -> bool:
    """Have it started if it gave up; whether it runs."""
    if shown["status"] == "Error" and shown["task_state"] is None:
        rest.call("POST", f"/containers/{shown['uuid']}/start")
    return shown["status"] == "Running"


def test_a_full_disk_of_the_database_refuses_what_changes_and_serves_the_rest(
    cloud: HigginsUp, docker_engine: DockerEngine, launcher: Launcher
) -> None:
    data = Path(tempfile.mkdtemp(prefix="higgins-small"))
    with small_disk(data, "32m"), in_place_of(cloud, docker_engine.options, launcher, data) as up:
        rest = Rest(up)
        rest.run("before", *IDLE)
        rest.settled("before", "Running")
        with full(data):
            refused = rest.ask("POST", "/containers?run=true", {"image": "busybox", "name": "late", "command": []})
            assert refused is not None and refused.status == 503 and "database" in refused.sentence, refused
            assert [one["name"] for one in rest.call("GET", "/containers")["containers"]] == ["before"]
        rest.run("after", *IDLE)
        rest.settled("after", "Running")
        rest.delete("before", "after")
    data.rmdir()
