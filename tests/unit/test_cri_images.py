"""Images of CRI, and whose they stay when the engine keeps them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from cri_api.v1 import api_pb2 as cri

from higgins.model.errors import EngineError, ImageNotFound
from higgins.runtimes.base import RegistryAuth
from higgins.runtimes.cri.client import Client
from higgins.runtimes.cri.images import Images

NAME = "registry.example/private:1"
ALICE = RegistryAuth(username="alice", password="p", domain="d")


class Engine:
    """An engine whose one image comes with a pull, and which may refuse to let it go."""

    def __init__(self) -> None:
        self.held = self.refuses = False
        self.image = SimpleNamespace(ImageStatus="ImageStatus", RemoveImage="RemoveImage", PullImage=self._pull)

    async def _pull(self, _request: cri.PullImageRequest) -> cri.PullImageResponse:
        self.held = True
        return cri.PullImageResponse(image_ref=NAME)

    async def ask(self, verb: str, _request: object, _about: str) -> Any:
        if verb == "ImageStatus":
            return cri.ImageStatusResponse(image=cri.Image(id="sha256:1", repo_tags=[NAME]) if self.held else None)
        if self.refuses:
            raise EngineError("The container engine refuses.")
        self.held = False
        return cri.RemoveImageResponse()


@pytest.mark.parametrize(("used", "refuses"), [({"sha256:1"}, False), (set(), True)])
async def test_an_image_that_stays_is_still_for_those_alone_who_may_read_it(used: set[str], refuses: bool) -> None:
    engine = Engine()
    images = Images(cast(Client, engine), None)
    await images.pull(NAME, "ifnotpresent", ALICE)
    engine.refuses = refuses
    with pytest.raises(EngineError):
        await images.remove(NAME, used)
    with pytest.raises(ImageNotFound):
        await images.pull(NAME, "never", None)
    engine.refuses = False
    await images.remove(NAME, set())
    engine.held = True  # somebody else had the engine fetch it
    assert (await images.pull(NAME, "never", None)).id == "sha256:1"
