"""Hosts of one cloud on one machine: network namespaces, each with an engine, a switch and an agent of its own.

Every switch is an Open vSwitch with its datapath in user space, and by OVN's controller a chassis that is named like
its host. Geneve leads from one to the other, over the bridge that is the network between the machines. All share
one kernel, so a loop device that Cinder exports is on every host; what is mounted, and where, is each host's own.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.engines import Daemon, wait_until
from tests.hosts.processes import BRIDGE, Machine, Process, ip, machine
from tests.networks.namespaces import Namespace
from tests.openstack import neutron

#: The network of the tunnels.
_TUNNELS = "198.51.100"
_UNDERLAY, _CARD = "br-phys", "phys"
#: What is in a machine's namespace when it is off.
_CABLES = frozenset({"lo", "up0", _CARD})


class Switch:
    """Open vSwitch and OVN's controller in a machine's namespace; what its database holds outlives them."""

    def __init__(self, machine: Machine, root: Path, address: str) -> None:
        self._host, self._namespace, self._address = machine.name, machine.namespace, address
        self._file = root / "conf.db"
        self.database = f"unix:{root}/db.sock"
        directories = {**os.environ, "OVS_RUNDIR": str(root), "OVN_RUNDIR": str(root)}

        def daemon(*words: str) -> Daemon:
            return Daemon([*machine.within, *words, "-vsyslog:off"], root / f"{words[0]}.log", directories)

        self._server = daemon("ovsdb-server", str(self._file), f"--remote=p{self.database}")
        self._switch = daemon("ovs-vswitchd", self.database)
        self._controller = daemon("ovn-controller", self.database)

    def start(self) -> None:
        if not self._file.exists():
            schema = "/usr/share/openvswitch/vswitch.ovsschema"
            subprocess.run(["ovsdb-tool", "create", str(self._file), schema], check=True)
        self._server.start()
        wait_until(Path(self.database.removeprefix("unix:")).is_socket, "the switch's database does not answer")
        self("--no-wait", "init")
        told = {
            "system-id": self._host,
            "hostname": self._host,
            "ovn-remote": "unix:/run/ovn/ovnsb_db.sock",
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": self._address,
            "ovn-bridge-datapath-type": "netdev",
        }
        ids = [f'external_ids:{name}="{value}"' for name, value in told.items()]
        self("--no-wait", "set", "Open_vSwitch", ".", *ids)
        self._switch.start()
        self("--may-exist", "add-br", _UNDERLAY, "--", "set", "Bridge", _UNDERLAY, "datapath_type=netdev")
        self("--may-exist", "add-port", _UNDERLAY, _CARD)
        wait_until(lambda: _UNDERLAY in _links(self._namespace), "the switch makes no bridge")
        self._namespace.run("ip", "address", "replace", f"{self._address}/24", "dev", _UNDERLAY)
        self._namespace.run("ip", "link", "set", _UNDERLAY, "up")
        self._controller.start()
        wait_until(lambda: "br-int" in self("list-br").split(), "OVN's controller makes no bridge")

    def __call__(self, *words: str) -> str:
        """What ``ovs-vsctl`` says."""
        return neutron.switch(f"--db={self.database}", "--timeout=20", *words)

    def end(self) -> None:
        """OVN forgets the chassis as well."""
        self.kill()
        subprocess.run(["ovn-sbctl", "--if-exists", "chassis-del", self._host], check=True)

    def kill(self) -> None:
        for one in (self._controller, self._switch, self._server):
            one.kill()
        Path(self.database.removeprefix("unix:")).unlink(missing_ok=True)


class Chassis:
    """A host: its machine and its switch."""

    def __init__(self, machine: Machine, switch: Switch) -> None:
        self.name = machine.name
        self.machine = machine
        self.switch = switch

    def start(self, *more: str) -> Process:
        """Its agent."""
        return self.machine.start("--spare-sandboxes", "0", *more)

    def kill_agent(self) -> None:
        """What it runs runs on."""
        assert self.machine.agent is not None
        self.machine.agent.kill()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Its power is cut: processes end at once, mounts and interfaces are gone, and what is on its disk stays.

        After the block it is on again.
        """
        self.kill_agent()
        self.switch.kill()
        engine, namespace = self.machine.engine, self.machine.namespace
        engine.kill()
        for pid in _processes(namespace):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _processes(namespace), f"what ran on {self.name} does not end")
        for place in _mounts(engine.root):
            subprocess.run(["umount", place], check=True)
        for name in _links(namespace) - _CABLES:
            namespace.run("ip", "link", "delete", name)
        shutil.rmtree(engine.root / "exec")  # in /run, as an operator has it
        try:
            yield
        finally:
            engine.start()
            self.switch.start()
            self.start()

    def remains(self) -> list[str]:
        """What it has of workloads: containers, wires, volumes and what is known of them."""
        kept = self.machine.data / "cinder"
        return [
            *self.machine.engine.command("ps", "--all", "--format", "{{.Names}}").split(),
            *neutron.wired(self.switch),
            *(name for name in _links(self.machine.namespace) if name.startswith("tap")),
            *_mounts(kept),
            *(str(path) for path in (*kept.glob("*.json"), *kept.glob("mounts/*"))),
        ]

    def mounted(self) -> list[Path]:
        """Where volumes of Cinder are mounted."""
        return [Path(place) for place in _mounts(self.machine.data / "cinder")]


def _processes(namespace: Namespace) -> set[int]:
    """Those in it, but for the one that holds it, and their descendants, which containers are."""
    here = os.stat(namespace.path).st_ino
    parents: dict[int, int] = {}
    found: set[int] = set()
    for process in (one for one in Path("/proc").iterdir() if one.name.isdigit()):
        try:
            state, parent = (process / "stat").read_text().rpartition(") ")[2].split()[:2]
            inode = (process / "ns" / "net").stat().st_ino
        except OSError:
            continue
        if state == "Z":
            continue
        parents[int(process.name)] = int(parent)
        if inode == here and int(process.name) != namespace.pid:
            found.add(int(process.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _mounts(below: Path) -> list[str]:
    """Mount points, those within others first."""
    places = [line.split(" ")[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in reversed(places) if place.startswith(f"{below}/")]


def _links(namespace: Namespace) -> set[str]:
    return {link["ifname"] for link in json.loads(namespace.run("ip", "-json", "link"))}


@contextmanager
def chassis(name: str, number: int, busybox: Path, settings: str) -> Iterator[Chassis]:
    """A host that is on, its agent not started yet; it ends with the block. ``settings`` are its agent's."""
    with ExitStack() as stack:
        made = stack.enter_context(machine(name, number, busybox, settings))
        far = f"hp{number}"
        ip("link", "add", far, "type", "veth", "peer", "name", _CARD, "netns", str(made.namespace.pid))
        stack.callback(ip, "link", "delete", far)
        ip("link", "set", far, "master", BRIDGE, "up")
        # The kernel sees what comes in by the card as well, and is not to answer for the bridge's address there.
        made.namespace.run("sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=1")
        made.namespace.run("ip", "link", "set", _CARD, "up")
        root = made.engine.root / "ovs"
        root.mkdir()
        switch = Switch(made, root, f"{_TUNNELS}.{number}")
        with (made.data / "higgins.conf").open("a") as file:
            file.write(f"[neutron]\novsdb = {switch.database}\n")
        stack.callback(switch.end)
        switch.start()
        yield Chassis(made, switch)
