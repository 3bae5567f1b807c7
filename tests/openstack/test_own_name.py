"""What becomes of users' trusts while Keystone does not let Higgins itself in."""

from typing import Any

import pytest
from keystoneauth1 import exceptions as failures

from higgins.images.openstack import CloudImages
from higgins.model.errors import Unauthorized
from higgins.openstack import trusts
from higgins.openstack.cinder import Cinder
from higgins.openstack.errors import ServiceRefused, ServiceUnavailable
from higgins.openstack.sessions import Sessions


class Plugin:
    """Credentials that are good or not. A token that was given stays so until it is asked for anew."""

    def __init__(self, good: bool) -> None:
        self.good = good
        self.held = "old"

    def invalidate(self) -> bool:
        self.held = ""
        return True

    def get_token(self, session: Any = None, **_: Any) -> str:
        if not self.held and not self.good:
            raise failures.Unauthorized("The password is wrong.")
        return self.held or "new"

    def get_headers(self, session: Any, **_: Any) -> dict[str, str]:
        return {"X-Auth-Token": self.get_token()}

    def get_endpoint(self, session: Any, **_: Any) -> str:
        self.get_token()
        raise AssertionError("nobody is asked by credentials that are none")

    get_endpoint_data = get_connection_params = get_endpoint


def sessions(*, own: bool) -> Sessions:
    broken = Plugin(False)
    broken.invalidate()
    return Sessions(Plugin(own), lambda trust: broken)  # type: ignore[arg-type, return-value]


async def test_a_trust_that_gives_nothing_is_over_only_where_higgins_itself_is_let_in() -> None:
    with pytest.raises(Unauthorized):
        await CloudImages(None, sessions(own=True)).token_by("trust")  # type: ignore[arg-type]
    with pytest.raises(ServiceUnavailable, match="does not let Higgins in"):
        await CloudImages(None, sessions(own=False)).token_by("trust")  # type: ignore[arg-type]


def test_a_trust_is_given_back_only_where_higgins_itself_is_let_in() -> None:
    trusts.give_back(sessions(own=True), "trust")
    with pytest.raises(ServiceUnavailable, match="does not let Higgins in"):
        trusts.give_back(sessions(own=False), "trust")


async def test_nothing_is_made_or_attached_in_higgins_own_name() -> None:
    cinder, shut_out = (Cinder(sessions(own=own)) for own in (True, False))
    with pytest.raises(ServiceRefused, match="cannot be acted for"):
        await cinder.make("trust", use="use", name="mine", size=1)
    with pytest.raises(ServiceRefused, match="cannot be acted for"):
        await cinder.attach("trust", "volume", use="use", connector={})
    with pytest.raises(ServiceUnavailable, match="does not let Higgins in"):
        await shut_out.make("trust", use="use", name="mine", size=1)
