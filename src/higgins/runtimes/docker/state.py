"""The engine's inspect and stats payloads → what we hold of them. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from higgins.runtimes.base import Observed, Sandbox, Stats
from higgins.runtimes.docker import config
from higgins.runtimes.wording import one_line

_STATES = {
    "created": "created",
    "running": "running",
    "restarting": "running",
    "paused": "paused",
    "exited": "exited",
    "removing": "dead",
    "dead": "dead",
}


def moment(text: str | None) -> datetime | None:
    """An engine's RFC 3339 time; it writes year 1 for never."""
    if not text or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text).astimezone(UTC)


def label(payload: Mapping[str, Any], key: str) -> str:
    """A label of an inspect payload, empty where it has none."""
    return str((payload["Config"].get("Labels") or {}).get(key, ""))


def observed(payload: Mapping[str, Any]) -> Observed:
    """A container of ours from its inspect payload."""
    said = payload["State"]
    state = _STATES.get(str(said["Status"]), "dead")
    # A start that failed leaves "created" behind, with the exit code and the reason.
    ended = state in ("exited", "dead") or bool(state == "created" and said.get("Error"))
    return Observed(
        uuid=label(payload, config.UUID),
        incarnation=int(label(payload, config.INCARNATION) or 0),
        sandbox=label(payload, config.SANDBOX),
        project_id=label(payload, config.PROJECT),
        state=state,
        exit_code=int(said["ExitCode"]) if ended else None,
        oom_killed=bool(said.get("OOMKilled")),
        reason=one_line(said.get("Error") or ""),
        started_at=moment(said.get("StartedAt")),
        finished_at=moment(said.get("FinishedAt")) if ended else None,
        image=str(payload["Config"].get("Image") or ""),
    )


def sandbox(payload: Mapping[str, Any]) -> Sandbox:
    """A sandbox from its inspect payload."""
    said = payload["State"]
    ready = bool(said.get("Running")) and int(said.get("Pid") or 0) > 0
    return Sandbox(
        uuid=label(payload, config.UUID),
        netns=f"/proc/{said['Pid']}/ns/net" if ready else "",
        ready=ready,
        project_id=label(payload, config.PROJECT),
        hostname=str(payload["Config"].get("Hostname") or ""),
    )


def cpu_percent(sample: Mapping[str, Any]) -> float:
    """Per cent of one core, between the sample and the one before it that the engine sends along."""
    now, before = sample["cpu_stats"], sample["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or passed <= 0:
        return 0.0
    cores = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ()) or 1
    return float(used / passed * cores * 100)


def _memory_used(memory: Mapping[str, Any]) -> int:
    """Without the page cache that could be dropped at once, on both versions of cgroups."""
    details = memory.get("stats") or {}
    idle = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(max(memory.get("usage", 0) - idle, 0))


def _blocks(sample: Mapping[str, Any], kind: str) -> int:
    entries = sample["blkio_stats"].get("io_service_bytes_recursive") or ()
    return sum(int(entry["value"]) for entry in entries if str(entry["op"]).lower() == kind)


def traffic(net_dev: str) -> tuple[int, int]:
    """Bytes received and sent over all interfaces but ``lo``, from the text of /proc/<pid>/net/dev."""
    received = sent = 0
    for line in net_dev.splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            columns = counters.split()
            received += int(columns[0])
            sent += int(columns[8])
    return received, sent


def stats(sample: Mapping[str, Any], net_dev: str) -> Stats:
    """The engine's sample, with traffic from ``net_dev``: interfaces that were plugged in later it does not count."""
    received, sent = traffic(net_dev)
    return Stats(
        cpu_percent=cpu_percent(sample),
        memory_used=_memory_used(sample["memory_stats"]),
        memory_limit=int(sample["memory_stats"].get("limit", 0)),
        block_read=_blocks(sample, "read"),
        block_write=_blocks(sample, "write"),
        net_rx=received,
        net_tx=sent,
    )
