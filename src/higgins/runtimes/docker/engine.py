"""What the engine says of itself, and what its host knows that it does not tell."""

from pathlib import Path
from typing import Any

from higgins.runtimes.base import EngineInfo


def engine_name(version: dict[str, Any]) -> str:
    """ "podman" where Podman speaks through its compatible socket."""
    parts = {str(part.get("Name", "")) for part in version.get("Components") or ()}
    return "podman" if any(part.startswith("Podman") for part in parts) else "docker"


def mount_options(mountinfo: str, path: str) -> set[str]:
    """The superblock options of the mount that ``path`` lies on, from the text of /proc/<pid>/mountinfo (proc(5))."""
    best, options = "", set[str]()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, options = point, set(after.split()[2].split(","))
    return options


def disk_quota(info: dict[str, Any], mountinfo: str) -> bool:
    """Whether a container's own disk can be bounded: with overlay2, only on XFS that is mounted with project quotas."""
    driver = info.get("Driver")
    if driver != "overlay2":
        return driver in ("btrfs", "zfs", "devicemapper")
    return bool({"prjquota", "pquota"} & mount_options(mountinfo, info.get("DockerRootDir") or "/"))


def classes(engine: str, said: dict[str, Any]) -> tuple[str, ...]:
    """The runtimes that a container can be made with.

    Podman names all that it has heard of, installed or not, and takes none of them for one container by this API: it
    is silent about the wish and uses its default.
    """
    if engine == "podman":
        return (str(said["DefaultRuntime"]),) if said.get("DefaultRuntime") else ()
    return tuple(sorted(said.get("Runtimes") or ()))


def info(version: dict[str, Any], said: dict[str, Any], mountinfo: str) -> EngineInfo:
    """From the engine's version and info payloads."""
    engine = engine_name(version)
    return EngineInfo(
        engine=engine,
        version=str(version["Version"]),
        classes=classes(engine, said),
        disk_quota=disk_quota(said, mountinfo),
    )


def net_dev(pid: int) -> str:
    """The interface counters of a process' network namespace; empty once the process is gone."""
    try:
        return Path(f"/proc/{pid}/net/dev").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
