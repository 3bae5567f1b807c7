"""Which runtime class a container gets, and which it may not have."""

import pytest

from higgins.control.creating import with_class
from higgins.control.settings import Settings
from higgins.model.container import ContainerSpec
from higgins.model.errors import Forbidden

OPEN = Settings(hypervisor_classes=("gvisor", "kata"))
CLOSED = Settings(hypervisor_classes=("gvisor", "kata"), hypervisor_only=True)
ONE = Settings(hypervisor_classes=("gvisor",), hypervisor_only_projects=("red",))


def spec(runtime: str | None = None) -> ContainerSpec:
    return ContainerSpec(image="busybox", runtime=runtime)


@pytest.mark.parametrize("runtime", [None, "runc", "kata"])
def test_a_cloud_without_the_rule_leaves_the_class_as_it_was_asked_for(runtime: str | None) -> None:
    assert with_class(OPEN, "red", spec(runtime)).runtime == runtime


def test_under_the_rule_a_container_without_a_class_gets_the_first_hypervisor() -> None:
    assert with_class(CLOSED, "red", spec()).runtime == "gvisor"
    assert with_class(CLOSED, "red", spec("kata")).runtime == "kata"


def test_under_the_rule_another_class_is_refused_in_words() -> None:
    with pytest.raises(Forbidden, match=r"only in a hypervisor's runtime class \(gvisor, kata\)"):
        with_class(CLOSED, "red", spec("runc"))
    with pytest.raises(Forbidden, match="none is set up"):
        with_class(Settings(hypervisor_only=True), "red", spec())


def test_the_rule_can_bind_one_project_alone() -> None:
    assert with_class(ONE, "red", spec()).runtime == "gvisor"
    assert with_class(ONE, "blue", spec()).runtime is None
