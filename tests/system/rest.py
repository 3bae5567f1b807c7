"""The API in plain HTTP, for tests that need many calls, or that ask while the server dies."""

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from tests.system.client import PATIENCE
from tests.system.cloud import HigginsUp

#: Seconds between two looks.
LOOK_EVERY = 0.03


class Answer(Struct, frozen=True):
    """What the server said. ``body`` is decoded JSON, None where there is none."""

    status: int
    body: Any

    @property
    def sentence(self) -> str:
        """What an error's envelope tells a tenant."""
        return str(self.body["errors"][0]["detail"])


class Rest:
    """The API of one cloud, as its administrator, in a microversion."""

    def __init__(self, up: HigginsUp, version: str = "1.40") -> None:
        environment = up.openrc()
        user = f"{environment['OS_USERNAME']}:{environment['OS_PASSWORD']}"
        self._headers = {
            "Authorization": f"Basic {b64encode(user.encode()).decode()}",
            "OpenStack-API-Version": f"container {version}",
            "Content-Type": "application/json",
        }
        self._up = up

    def ask(self, method: str, path: str, body: Any = None) -> Answer | None:
        """What is answered; None where the server went away, whether or not it has done it."""
        host, _, port = self._up.listen.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"/v1{path}", body=sent, headers=self._headers)
            response = connection.getresponse()
            data = response.read()
        except (ConnectionError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        kind = response.headers.get_content_type()
        return Answer(response.status, json.loads(data) if data.strip() and kind == "application/json" else None)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The body of the answer; it must be a success."""
        answer = self.ask(method, path, body)
        assert answer is not None, f"{method} {path}: no answer; {self._up.log()[-3000:]}"
        assert answer.status < 300, f"{method} {path}: {answer}"
        return answer.body

    # containers

    def run(self, name: str, *command: str, start: bool = True, **fields: Any) -> Any:
        """Ask for a container of busybox."""
        body = {"image": "busybox", "name": name, "command": list(command)} | fields
        return self.call("POST", f"/containers?run={str(start).lower()}", body)

    def show(self, name: str) -> dict[str, Any] | None:
        """The container; None where there is none."""
        answer = self.ask("GET", f"/containers/{name}")
        assert answer is not None, f"no answer; {self._up.log()[-3000:]}"
        if answer.status == 404:
            return None
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.body
        return shown

    def execute(self, name: str, *command: str) -> tuple[int, str]:
        """Run a command inside; its exit code and output."""
        words = quote(" ".join(command))
        done = self.call("POST", f"/containers/{name}/execute?command={words}&run=true&interactive=false")
        return done["exit_code"], done["output"]

    def logs(self, name: str) -> str:
        return str(self.call("GET", f"/containers/{name}/logs?stdout=true&stderr=true"))

    def wait(self, name: str, claim: Callable[[dict[str, Any] | None], bool], what: str) -> dict[str, Any]:
        """Look until the claim holds of the container (None: gone); the container as it then is."""
        deadline = time.monotonic() + PATIENCE
        while not claim(shown := self.show(name)):
            assert time.monotonic() < deadline, f"{name} never {what}: {shown}; {self._up.log()[-3000:]}"
            time.sleep(LOOK_EVERY)
        return shown or {}

    def wait_until(self, claim: Callable[[], bool], what: str) -> None:
        """Look until the claim holds."""
        deadline = time.monotonic() + PATIENCE
        while not claim():
            assert time.monotonic() < deadline, f"never: {what}; {self._up.log()[-3000:]}"
            time.sleep(LOOK_EVERY)

    def settled(self, name: str, status: str) -> dict[str, Any]:
        """Wait until the container has the status and nothing is being done to it; it then."""
        return self.wait(
            name,
            lambda shown: shown is not None and shown["status"] == status and shown["task_state"] is None,
            f"came to rest in {status}",
        )

    def gone(self, *names: str) -> None:
        """Wait until there are no such containers."""
        for name in names:
            self.wait(name, lambda shown: shown is None, "went")

    def delete(self, *names: str) -> None:
        """Remove containers whatever their state, and wait until they are gone."""
        for name in names:
            if self.show(name) is not None:
                self.call("DELETE", f"/containers/{name}?force=true")
        self.gone(*names)
