"""The life of a container, driven by the unmodified client."""

from tests.system.client import OpenStack
from tests.system.conftest import Naming

#: A program that ends at once when told to, so that no test waits for a SIGKILL.
PATIENT = ("sh", "-c", "trap exit TERM; while sleep 0.1; do :; done")


def test_run_gives_a_running_container_with_the_log_of_its_program(openstack: OpenStack, named: Naming) -> None:
    name = named("run")
    program = 'echo "Hello from $(hostname)"; exec sleep 1000'
    made = openstack.json("run", "--name", name, "--hostname", "greeter", "busybox", "sh", "-c", program)
    assert made["name"] == name and made["status"] in ("Creating", "Running")
    shown = openstack.wait(name, "Running")
    assert shown["uuid"] == made["uuid"]
    assert shown["image"] == "busybox" and shown["command"] == ["sh", "-c", program]
    assert shown["status_reason"] is None and shown["addresses"]
    assert "Hello from greeter" in openstack.wait_for_log(name, "Hello")


def test_create_makes_it_and_start_stop_restart_drive_it(openstack: OpenStack, named: Naming) -> None:
    name = named("drive")
    openstack("create", "--name", name, "busybox", *PATIENT)
    openstack.wait(name, "Created")
    openstack("start", name)
    openstack.wait(name, "Running")
    before = openstack("exec", name, "cat", "/proc/1/stat")
    openstack("restart", "--timeout", "2", name)
    openstack.wait(name, "Running")
    openstack.wait_until(lambda: openstack.call("exec", name, "cat", "/proc/1/stat").out not in ("", before))
    openstack("stop", "--timeout", "2", name)
    openstack.wait(name, "Stopped")
    openstack("start", name)
    openstack.wait(name, "Running")


def test_pause_freezes_it_and_unpause_lets_it_go_on(openstack: OpenStack, named: Naming) -> None:
    name = named("pause")
    openstack("run", "--name", name, "busybox", *PATIENT)
    openstack.wait(name, "Running")
    openstack("pause", name)
    openstack.wait(name, "Paused")
    openstack("unpause", name)
    openstack.wait(name, "Running")


def test_kill_sends_the_signal_and_the_end_shows(openstack: OpenStack, named: Naming) -> None:
    name = named("kill")
    openstack(
        "run", "--name", name, "busybox", "sh", "-c", "trap 'echo caught; exit 7' USR1; while sleep 0.1; do :; done"
    )
    openstack.wait(name, "Running")
    openstack("kill", "--signal", "SIGUSR1", name)
    shown = openstack.wait(name, "Stopped")
    assert "7" in (shown["status_reason"] or shown["status_detail"] or "")
    assert "caught" in openstack("logs", name)
    openstack("start", name)
    openstack.wait(name, "Running")
    openstack("kill", name)
    openstack.wait(name, "Stopped")


def test_rebuild_starts_over_from_the_image_and_keeps_the_name(openstack: OpenStack, named: Naming) -> None:
    name = named("rebuild")
    openstack("run", "--name", name, "busybox", *PATIENT)
    uuid = openstack.wait(name, "Running")["uuid"]
    openstack("exec", name, "touch", "/scratch")
    assert "scratch" in openstack("exec", name, "ls", "/")
    openstack("rebuild", name)

    def started_over() -> bool:
        looked = openstack.call("exec", name, "ls", "/")
        return looked.code == 0 and "bin" in looked.out and "scratch" not in looked.out

    openstack.wait_until(started_over)
    assert openstack.wait(name, "Running")["uuid"] == uuid


def test_set_changes_limits_and_name(openstack: OpenStack, named: Naming) -> None:
    name, other = named("set"), named("set")
    openstack("run", "--name", name, "--cpu", "0.2", "--memory", "64", "busybox", *PATIENT)
    openstack.wait(name, "Running")
    openstack("set", "--cpu", "0.5", "--memory", "128", "--name", other, "--auto-heal", name)
    shown = openstack.wait(other, "Running")
    assert (shown["cpu"], shown["memory"], shown["auto_heal"]) == (0.5, "128", True)
    openstack("set", "--no-auto-heal", other)
    assert openstack.show(other)["auto_heal"] is False
    assert openstack.status(name) is None


def test_delete_refuses_what_runs_unless_told_to_stop_it(openstack: OpenStack, named: Naming) -> None:
    name = named("delete")
    openstack("run", "--name", name, "busybox", *PATIENT)
    openstack.wait(name, "Running")
    assert " failed: " in openstack.call("delete", name).out
    assert openstack.status(name) == "Running"
    openstack("delete", "--stop", name)
    openstack.wait(name, None)


def test_delete_force_removes_what_runs(openstack: OpenStack, named: Naming) -> None:
    name = named("force")
    openstack("run", "--name", name, "busybox", *PATIENT)
    openstack.wait(name, "Running")
    openstack("delete", "--force", name)
    openstack.wait(name, None)


def test_delete_removes_what_never_ran(openstack: OpenStack, named: Naming) -> None:
    name = named("never")
    openstack("create", "--name", name, "busybox", "true")
    openstack.wait(name, "Created")
    openstack("delete", name)
    openstack.wait(name, None)


def test_what_cannot_start_says_why(openstack: OpenStack, named: Naming) -> None:
    missing, broken = named("missing"), named("broken")
    openstack("run", "--name", missing, "--image-pull-policy", "never", "no-such-image", "true")
    openstack("run", "--name", broken, "busybox", "no-such-program")
    openstack.wait_until(lambda: openstack.status(missing) == "Error")
    assert "no-such-image" in openstack.show(missing)["status_reason"]
    openstack.wait_until(lambda: "no-such-program" in (openstack.show(broken)["status_reason"] or ""))


def test_a_restart_policy_and_auto_remove_are_kept(openstack: OpenStack, named: Naming) -> None:
    again, once = named("again"), named("once")
    openstack("run", "--name", again, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo turn; exit 1")
    openstack("run", "--name", once, "--auto-remove", "busybox", "true")
    openstack.wait(once, None)
    openstack.wait_until(lambda: openstack.call("logs", again).out.count("turn") == 3)
    openstack.wait(again, "Stopped")
