"""A host's volume drivers as one: what is to be attached names its driver, and what is there is found by looking."""

from collections.abc import Mapping

from higgins.model.errors import EngineError
from higgins.volumes.base import Volumes, VolumeWire


class Drivers:
    """Implements ``Volumes`` by several; each keeps its own, so that a verb about a uuid may be asked of all."""

    def __init__(self, drivers: Mapping[str, Volumes]) -> None:
        self._drivers = drivers

    async def attach(self, volume: VolumeWire) -> str:
        driver = self._drivers.get(volume.driver)
        if driver is None:
            raise EngineError(f"This host has no volumes of the kind {volume.driver}.")
        return await driver.attach(volume)

    async def detach(self, uuid: str) -> None:
        for driver in self._drivers.values():
            await driver.detach(uuid)

    async def delete(self, uuid: str) -> None:
        for driver in self._drivers.values():
            await driver.delete(uuid)

    async def attached(self) -> list[str]:
        return [uuid for driver in self._drivers.values() for uuid in await driver.attached()]

    async def held(self) -> list[str]:
        return [uuid for driver in self._drivers.values() for uuid in await driver.held()]
