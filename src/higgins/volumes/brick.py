"""os-brick: how a host comes to a block device that some storage exports. Blocking; called in threads, as root.

os-brick brings much of OpenStack's own plumbing. Three things of it are set here for the whole process: its loops run
in threads (eventlet is kept out, which else warns, and hooks into every fork), what needs root is done in this very
process, which is root already, and its locks lie where the operator says.
"""

import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from higgins.model.errors import EngineError

#: No prefix: this process is root.
_AS_ROOT = ""


class BrickSettings(Struct, frozen=True, kw_only=True):
    """How this host reaches storage. ``locks`` is a directory that whoever else uses os-brick here should share."""

    host: str
    address: str
    locks: Path
    multipath: bool = False
    enforce_multipath: bool = False


class Brick:
    """os-brick on this host. Made with ``open_brick``."""

    def __init__(
        self,
        settings: BrickSettings,
        library: Any,
        failures: tuple[type[Exception], ...],
        unknown: type[Exception],
    ) -> None:
        """``library`` raises one of ``failures``, of which ``unknown`` is that it has no such kind of connection."""
        self._settings = settings
        self._unknown = unknown
        self._library = library
        self._failures = failures

    def properties(self) -> dict[str, Any]:
        """What Cinder has to know of this host to export a volume to it. Raises ``EngineError``."""
        mine = self._settings
        try:
            told = self._library.get_connector_properties(
                _AS_ROOT, mine.address, mine.multipath, mine.enforce_multipath, host=mine.host
            )
        except self._failures as error:
            raise EngineError(f"The host cannot attach volumes: {_words(error)}.") from error
        return dict(told)

    def connect(self, connection: dict[str, Any]) -> dict[str, Any]:
        """Make the volume of a connection a device of this host; what it is (``path``). Raises ``EngineError``."""
        try:
            return dict(self._connector(connection).connect_volume(_data(connection)))
        except self._failures as error:
            raise EngineError(f"The host cannot reach the volume: {_words(error)}.") from error

    def disconnect(self, connection: dict[str, Any], device: dict[str, Any]) -> None:
        """The device is gone from this host. One that is gone already is no error. Raises ``EngineError``."""
        try:
            self._connector(connection).disconnect_volume(_data(connection), device)
        except self._unknown:
            return  # then it never was connected
        except self._failures as error:
            raise EngineError(f"The host cannot let go of the volume: {_words(error)}.") from error

    def _connector(self, connection: dict[str, Any]) -> Any:
        """Raises whatever a connection of an unknown kind makes os-brick raise."""
        return self._library.InitiatorConnector.factory(
            connection["driver_volume_type"],
            _AS_ROOT,
            use_multipath=self._settings.multipath,
            conn=connection,  # where file systems that hold volumes are mounted
        )


def open_brick(settings: BrickSettings) -> Brick:
    """Raises ``EngineError`` where os-brick is not installed."""
    settings.locks.mkdir(parents=True, exist_ok=True)
    before = sys.modules.get("eventlet")
    sys.modules["eventlet"] = None  # type: ignore[assignment]  # what cannot be imported is done without
    try:
        from oslo_service import backend  # type: ignore[import-untyped]

        if backend.get_backend_type() is None:
            backend.init_backend(backend.BackendType.THREADING)
        from os_brick import exception, privileged  # type: ignore[import-untyped]
        from os_brick.initiator import connector  # type: ignore[import-untyped]
        from oslo_concurrency import lockutils, processutils
        from oslo_config import cfg
    except ModuleNotFoundError as error:
        raise EngineError(f"The Python package of {error.name} is missing: install higgins[openstack-host].") from error
    finally:
        if before is None:
            del sys.modules["eventlet"]
        else:
            sys.modules["eventlet"] = before
    privileged.default.set_client_mode(False)
    lockutils.set_defaults(str(settings.locks))
    cfg.CONF.set_override("lock_path", str(settings.locks), group="os_brick")
    failures = (exception.BrickException, processutils.ProcessExecutionError, OSError, ValueError, KeyError, TypeError)
    return Brick(settings, connector, failures, exception.InvalidConnectorProtocol)


def _data(connection: dict[str, Any]) -> dict[str, Any]:
    """Cinder's attachments hold the data beside the kind, its older calls below a key of its own."""
    return dict(connection.get("data") or connection)


def _words(error: Exception) -> str:
    """The first line of what os-brick says, without a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
