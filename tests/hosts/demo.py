"""``make demo-cluster``: a control plane and three hosts, shown at work."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.engines.images import busybox
from tests.hosts.processes import ControlPlane, Machine, bridge, machine, wait_for
from tests.system.client import OpenStack

NAMES = ("one", "two", "three")


def tell(words: str) -> None:
    print(f"\n\033[1m{words}\033[0m" if sys.stdout.isatty() else f"\n{words}", flush=True)


class Demo:
    """The cloud, and a client that shows what it is asked and what it answers."""

    def __init__(self, stack: ExitStack, control: ControlPlane, machines: list[Machine]) -> None:
        self.control = control
        self.machines = machines
        self.client = OpenStack(control.openrc())
        stack.callback(self.client.close)

    def show(self, *words: str) -> None:
        print(f"$ openstack appcontainer {shlex.join(words)}", flush=True)
        out = self.client(*words)
        print(out if words[0] != "run" else "", flush=True)

    def states(self) -> dict[str, str]:
        return {row["Host"]: row["State"] for row in self.client.json("service", "list")}

    def hosts_of(self) -> dict[str, str]:
        """Where each container runs."""
        rows = self.client.json("list")
        shown = {row["name"]: self.client.show(row["name"]) for row in rows}
        return {name: str(one["host"]) for name, one in shown.items() if one["status"] == "Running"}


def spread(demo: Demo) -> None:
    tell("Three containers on one network. Each is placed on the host that is emptiest:")
    names = [f"web-{number}" for number in (1, 2, 3)]
    for name in names:
        serve = f"echo this is {name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
        demo.show("run", "--name", name, "--auto-heal", "busybox", "sh", "-c", serve)
    for name in names:
        demo.client.wait(name, "Running")
    demo.show("list", "--fit-width")
    for name, host in demo.hosts_of().items():
        print(f"{name} runs on host {host}", flush=True)
    tell("They reach each other by name, through tunnels between the hosts:")
    ask = ("exec", "web-1", "wget", "-q", "-O", "-", "http://web-3")
    wait_for(lambda: demo.client.call(*ask).code == 0, lambda: "web-1 does not reach web-3")
    demo.show(*ask)


def leave(demo: Demo) -> None:
    before = demo.hosts_of()["web-3"]
    tell(f"Host {before} is drained. What runs there moves, and keeps its name and address:")
    print(f"$ higgins host drain {before}", flush=True)
    print(demo.control.drain(before), flush=True)
    wait_for(lambda: demo.hosts_of().get("web-3", before) != before, lambda: f"{demo.hosts_of()}")
    demo.show("show", "web-3", "-c", "name", "-c", "host", "-c", "status", "-c", "addresses")
    ask = ("exec", "web-1", "wget", "-q", "-O", "-", "http://web-3")
    wait_for(lambda: demo.client.call(*ask).code == 0, lambda: "web-1 does not reach web-3 where it is now")
    demo.show(*ask)


def main() -> int:
    with ExitStack() as stack:
        stack.enter_context(bridge())
        data = Path(tempfile.mkdtemp(prefix="higgins-demo"))
        stack.callback(shutil.rmtree, data)
        image = data / "busybox.tar"
        image.write_bytes(busybox())
        tell("A control plane (higgins api) with its database:")
        control = ControlPlane(data)
        control.start()
        stack.callback(lambda: control.process and control.process.stop())
        print(f"agents come to {control.url}", flush=True)
        machines = []
        for number, name in enumerate(NAMES, 11):
            tell(f"Host {name}: a network namespace with an engine of its own. It joins with a token:")
            made = stack.enter_context(machine(name, number, image))
            print(f"$ higgins agent --join {control.url} --token …", flush=True)
            made.start("--join", control.url, "--token", control.token())
            machines.append(made)
        demo = Demo(stack, control, machines)
        wait_for(lambda: set(demo.states().values()) == {"up"} and len(demo.states()) == 3, lambda: f"{demo.states()}")
        demo.show("service", "list")
        spread(demo)
        leave(demo)
        if sys.stdin.isatty():
            tell("A shell with the client set up for this cloud; all of it ends with the shell.")
            subprocess.run([os.environ.get("SHELL", "sh")], env={**os.environ, **control.openrc()}, check=False)
        demo.client.delete([row["name"] for row in demo.client.json("list")])
    tell("All of it is gone again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
