"""Containers: create, show, list, change, delete."""

from tests.api.conftest import Caller
from tests.api.host import FakeHost


async def test_a_container_is_created_listed_shown_and_deleted(api: Caller, host: FakeHost) -> None:
    made = await api.post("/v1/containers?run=true", {"image": "busybox", "name": "web", "command": ["sleep", "9"]})
    assert made.status == 202
    uuid = made.json["uuid"]
    assert made.headers["Location"].endswith(f"/v1/containers/{uuid}")
    assert (made.json["status"], made.json["memory"], made.json["cpu"]) == ("Creating", "512", 1.0)
    await host.settle()
    shown = await api.get("/v1/containers/web")
    assert (shown.status, shown.json["status"], shown.json["uuid"]) == (200, "Running", uuid)
    assert [link["rel"] for link in shown.json["links"]] == ["self", "bookmark"]
    listed = await api.get("/v1/containers")
    assert [item["uuid"] for item in listed.json["containers"]] == [uuid]
    assert listed.json["next"] is None
    assert "links" not in listed.json["containers"][0]
    gone = await api.call("DELETE", f"/v1/containers/{uuid}?force=False&stop=True&all_projects=False")
    assert (gone.status, gone.text) == (204, "")
    await host.settle()
    assert (await api.get(f"/v1/containers/{uuid}")).code == "container.container-not-found"
