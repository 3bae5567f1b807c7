"""A network service in memory: what tests of ports have in Neutron's place. Neutron itself is in tests/openstack."""

import itertools
import uuid

from msgspec import structs

from higgins.model.errors import HigginsError, NotFound
from higgins.model.networking import CloudNetwork, CloudPort, CloudSubnet, Described, Fixed, WantedPort
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from tests.control.conftest import Stop

NET = CloudNetwork(id=str(uuid.uuid4()), name="blue", project_id="red", mtu=1442, subnets=("s",))
SUBNET = CloudSubnet(id="s", network=NET.id, cidr="10.0.0.0/24", gateway="10.0.0.1", dns=("192.0.2.1",))


class Service:
    """The network service. ``trouble`` is what it answers instead; ``quota`` how many ports there may be; ``asked`` how
    many were asked for with each request.
    """

    owner = "compute:higgins"

    def __init__(self) -> None:
        self.there: dict[str, CloudPort] = {}
        self.trouble: HigginsError | None = None
        self.stopped: Stop | None = None  # where the next ports to be made come to
        self.quota = 1000
        self.asked: list[int] = []
        self.nets = [NET]
        self._addresses = itertools.count(10)

    def _try(self) -> None:
        if isinstance(self.trouble, ServiceUnavailable):
            raise self.trouble

    async def find_networks(self, token: str, ident: str | None = None) -> list[CloudNetwork]:
        return [one for one in self.nets if ident in (None, one.id, one.name)]

    async def find_subnets(self, token: str) -> list[CloudSubnet]:
        return [SUBNET]

    async def find_port(self, token: str, ident: str) -> CloudPort | None:
        return self.there.get(ident)

    async def find_groups(self, token: str, project_id: str, ident: str) -> list[str]:
        return [f"id-of-{ident}"]

    async def exposing_group(self, token: str, project_id: str, ports: tuple[str, ...]) -> str:
        return "exposing"

    async def make_ports(self, wanted: list[WantedPort]) -> list[CloudPort | HigginsError]:
        self._try()
        stopped, self.stopped = self.stopped, None
        if stopped is not None:
            await stopped.here()
        if self.trouble is not None:
            return [self.trouble] * len(wanted)
        self.asked.append(len(wanted))
        return [self._make(one) for one in wanted]

    def _make(self, one: WantedPort) -> CloudPort | HigginsError:
        if len(self.there) >= self.quota:
            return ServiceRefused("Neutron", "no port can be made", "Quota exceeded")
        return self.add(one.name, one.device, one.host, one.groups or ("default",), one.project_id, one.network)

    def add(
        self, name: str, device: str = "", host: str = "", groups: tuple[str, ...] = (), project_id: str = "red",
        network: str = NET.id,
    ) -> CloudPort:  # fmt: skip
        made = CloudPort(
            id=str(uuid.uuid4()),
            name=name,
            network=network,
            project_id=project_id,
            mac="fa:16:3e:00:00:01",
            device=device,
            owner=self.owner if device else "",
            host=host,
            kind="ovs",
            bridge="br-int",
            fixed=(Fixed(f"10.0.0.{next(self._addresses)}", "s"),),
            groups=groups,
        )
        self.there[made.id] = made
        return made

    async def ports_of(self, devices: list[str]) -> list[CloudPort]:
        self._try()
        return [one for one in self.there.values() if one.device in devices]

    async def ports(self, ids: list[str]) -> dict[str, CloudPort]:
        self._try()
        return {ident: self.there[ident] for ident in ids if ident in self.there}

    async def bind(self, port: str, *, host: str, device: str, groups: tuple[str, ...] | None = None) -> CloudPort:
        self._try()
        if port not in self.there:
            raise NotFound("port", port)
        before = self.there[port]
        changes = {"host": host, "device": device, "owner": self.owner, "groups": groups or before.groups}
        return self.change(port, **changes)

    def change(self, port: str, **values: object) -> CloudPort:
        self.there[port] = structs.replace(self.there[port], **values)
        return self.there[port]

    async def let_go(self, port: str, device: str) -> None:
        if port in self.there:
            await self.bind(port, host="", device="")

    async def delete(self, port: str) -> None:
        self._try()
        self.there.pop(port, None)

    async def describe(self, networks: list[str]) -> Described:
        return Described({NET.id: NET}, {"s": SUBNET}, {})
