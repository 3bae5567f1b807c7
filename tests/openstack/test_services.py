"""What answers of Cinder mean, and how Placement is told of amounts: the pure parts."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keystoneauth1 import adapter, noauth, session
from keystoneauth1 import exceptions as failures

from higgins.model.errors import Unauthorized
from higgins.model.shares import Amount, Offer
from higgins.openstack.cinder import Cinder, refusal, stored
from higgins.openstack.errors import NotInCatalogue, ServiceRefused, ServiceUnavailable
from higgins.openstack.placement import Placement, inventories, split

DOING = "volume data cannot be attached"


def answer(status: int, says: str = "It is in use.") -> failures.HttpError:
    return failures.HttpError(message=f"{says} (HTTP {status})", details=says, http_status=status)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_cinder_is_one_that_does_not_answer(status: int) -> None:
    found = refusal(answer(status), DOING)
    assert isinstance(found, ServiceUnavailable) and f"so {DOING}" in str(found)


@pytest.mark.parametrize(
    ("status", "final"), [(403, True), (404, True), (413, True), (400, False), (409, False), (500, False)]
)
def test_a_refusal_says_what_cinder_says_and_whether_it_may_pass(status: int, final: bool) -> None:
    found = refusal(answer(status), DOING)
    assert isinstance(found, ServiceRefused) and found.final is final
    assert str(found) == f"Cinder refuses, so {DOING}: It is in use ({status})."


def test_a_token_that_cinder_does_not_take_is_no_refusal() -> None:
    assert isinstance(refusal(answer(401), DOING), Unauthorized)


def test_a_volume_without_a_name_is_called_by_its_id() -> None:
    found = stored({"id": "1", "name": None, "size": 2, "status": "in-use", "multiattach": True})
    assert (found.name, found.size, found.multiattach) == ("1", 2, True)


_AMOUNT = st.integers(0, 5000)
_MOST = st.integers(1, 700)


@given(_AMOUNT, _AMOUNT, _AMOUNT, _MOST, _MOST)
def test_the_parts_of_an_amount_are_all_of_it_and_none_too_large(
    cpu: int, memory: int, disk: int, most_cpu: int, most_memory: int
) -> None:
    most = {"VCPU": most_cpu, "MEMORY_MB": most_memory}
    parts = split(Amount(cpu, memory, disk), most)
    assert sum(part.get("VCPU", 0) for part in parts) == cpu
    assert sum(part.get("MEMORY_MB", 0) for part in parts) == memory
    assert all(0 < count <= most[one] for part in parts for one, count in part.items())
    assert len(parts) == max(-(-cpu // most_cpu), -(-memory // most_memory))


def test_a_host_offers_what_it_has_by_the_operators_ratios() -> None:
    offer = Offer(total=Amount(4, 8192, 0), cpu_ratio=16.0, memory_ratio=1.5, disk_ratio=1.0)
    assert inventories(offer) == {
        "VCPU": {"total": 4, "allocation_ratio": 16.0, "max_unit": 64},
        "MEMORY_MB": {"total": 8192, "allocation_ratio": 1.5, "max_unit": 12288},
    }


async def test_a_service_that_the_catalogue_lacks_is_named_as_that() -> None:
    def client(kind: str, *_token: str) -> adapter.Adapter:
        return adapter.Adapter(session.Session(auth=noauth.NoAuth()), service_type=kind)

    sessions: Any = SimpleNamespace(own=client, caller=client)
    with pytest.raises(NotInCatalogue, match="block-storage service is not in Keystone's catalogue"):
        await Cinder(sessions).find("token", "data")
    with pytest.raises(NotInCatalogue, match="placement service"):
        await Placement(sessions).let_go(name="one", uuid="1")
