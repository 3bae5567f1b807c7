"""What was asked and answered, what was found afterwards, and whether the two agree. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct, field
from msgspec.structs import replace


class Answer(Struct, frozen=True):
    """What came of one try of a request. ``status`` of HTTP; None where no answer came.

    One that was not ``sent``, because nobody took the connection, was certainly not carried out.
    """

    status: int | None
    text: str = ""
    sent: bool = True

    @property
    def open(self) -> bool:
        """Whether it may have been done or not."""
        return self.sent and (self.status is None or self.status >= 500)

    @property
    def final(self) -> bool:
        """Whether there is no sense in trying again."""
        return self.status is not None and self.status < 500


class Operation(Struct):
    """A request, and the answers to all of its tries in turn. ``name`` is the container's, which is never used again.

    Those about one container follow one another: the next begins when the one before was answered.
    """

    name: str
    verb: str
    answers: list[Answer] = field(default_factory=list)
    uuid: str = ""  # as the answer to a create tells it

    @property
    def outcome(self) -> str:
        """``accepted``, ``refused``, or ``unknown``: it may have been done, or not."""
        if not self.answers:
            return "unknown"
        last = self.answers[-1].status
        if last is not None and last < 400:
            return "accepted"
        return "unknown" if any(one.open for one in self.answers) else "refused"


class State(Struct, frozen=True):
    """A container that is there: whether it runs, and whether it is on the second network, too."""

    runs: bool = True
    beside: bool = False


class Shown(Struct, frozen=True, kw_only=True):
    """A container as the API shows it. ``ports`` are the uuids of its ports."""

    uuid: str
    name: str
    status: str
    reason: str | None = None
    host: str | None = None
    beside: bool = False
    ports: tuple[str, ...] = ()


class Held(Struct, frozen=True, kw_only=True):
    """What a host has: containers of tenants by uuid (one entry for each incarnation), and the ports it has wired."""

    running: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    ports: frozenset[str] = frozenset()


class Found(Struct, frozen=True, kw_only=True):
    """All that was found: ``differences`` is what the audit of claims, quotas, ports and volumes tells.

    ``restless`` are workloads that are not yet what they should be, as the control plane itself knows.
    """

    shown: tuple[Shown, ...] = ()
    hosts: dict[str, Held] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    restless: int = 0


def after(state: State | None, verb: str) -> State | None:
    """What a container is once the request was done."""
    match verb:
        case "create":
            return State()
        case "delete":
            return None
    if state is None:
        return None
    match verb:
        case "start":
            return replace(state, runs=True)
        case "stop":
            return replace(state, runs=False)
        case "attach":
            return replace(state, beside=True)
        case "detach":
            return replace(state, beside=False)
    raise ValueError(f"{verb} is no operation")


def possible(operations: Iterable[Operation]) -> set[State | None]:
    """All that a container may be after these; None stands for not being there."""
    states: set[State | None] = {None}
    for one in operations:
        done = {after(state, one.verb) for state in states}
        match one.outcome:
            case "accepted":
                states = done
            case "unknown":
                states |= done
    return states


def faults(history: Iterable[Operation], found: Found) -> list[str]:
    """What is not as it should be, each in a sentence; nothing where all is well."""
    asked: dict[str, list[Operation]] = defaultdict(list)
    for one in history:
        asked[one.name].append(one)
    told = [*_answers(asked), *_requests(asked, found), *_copies(found), *_wires(found)]
    told += [f"it does not add up: {one}" for one in found.differences]
    if found.restless:
        told.append(f"{found.restless} workloads have not come to rest")
    return told


def _answers(asked: dict[str, list[Operation]]) -> Iterator[str]:
    """A fault that nobody foresaw is told with 500."""
    for operations in asked.values():
        for one in operations:
            for answer in one.answers:
                if answer.status == 500:
                    yield f"{one.verb} of {one.name} failed: {answer.text}"


def _requests(asked: dict[str, list[Operation]], found: Found) -> Iterator[str]:
    """Every accepted request happened, or its container says why not; and nothing else did."""
    shown: dict[str, list[Shown]] = defaultdict(list)
    for one in found.shown:
        shown[one.name].append(one)
    for name in shown.keys() - asked.keys():
        yield f"{name} is there, and nobody asked for it"
    for name, operations in asked.items():
        may, there = possible(operations), shown[name]
        way = ", ".join(f"{one.verb} {one.outcome}" for one in operations)
        if len(there) > 1:
            yield f"{name} was made {len(there)} times ({way})"
        elif not there:
            if None not in may:
                yield f"{name} is not there ({way})"
        else:
            (one,) = there
            told = {operation.uuid for operation in operations if operation.uuid}
            if told - {one.uuid}:
                yield f"{name} is {one.uuid}, and was told to be {', '.join(sorted(told))}"
            if may == {None}:
                yield f"{name} is there, and {one.status} ({way})"
            elif one.status == "Error":
                if not one.reason:
                    yield f"{name} is in Error and does not say why"
            elif _state(one) not in may:
                yield f"{name} is {one.status}{' and on both networks' if one.beside else ''} ({way})"


def _state(one: Shown) -> State | None:
    """What the status comes to; a status that is on its way to another is none that it may have in the end."""
    return State(one.status == "Running", one.beside) if one.status in ("Running", "Stopped") else None


def _copies(found: Found) -> Iterator[str]:
    """What is shown to run runs once, on the host that is shown; nothing else does, and no host keeps anything else."""
    shown = {one.uuid: one for one in found.shown}
    running: dict[str, list[str]] = defaultdict(list)
    for host, held in found.hosts.items():
        for uuid in held.running:
            running[uuid].append(host)
        for uuid, count in Counter(held.running + held.others).items():
            one = shown.get(uuid)
            if one is None:
                yield f"host {host} has container {uuid}, which is nobody's"
            elif one.host != host:
                yield f"host {host} has {one.name}, which is on {one.host}"
            elif count > 1:
                yield f"host {host} has {one.name} {count} times"
    for uuid, places in running.items():
        if len(places) > 1:
            name = shown[uuid].name if uuid in shown else uuid
            yield f"{name} runs {len(places)} times, on {' and '.join(sorted(places))}"
    for one in found.shown:
        if one.status == "Running" and not running[one.uuid]:
            yield f"{one.name} is shown to run, and runs nowhere"
        if one.status == "Stopped" and running[one.uuid]:
            yield f"{one.name} is shown as stopped, and runs"


def _wires(found: Found) -> Iterator[str]:
    """What runs is wired, and no host has a wire of nobody's."""
    for host, held in found.hosts.items():
        here = [one for one in found.shown if one.host == host]
        mine = {port for one in here for port in one.ports}
        for port in sorted(held.ports - mine):
            yield f"host {host} has port {port}, which is nobody's there"
        for one in here:
            if one.status == "Running" and (lacking := set(one.ports) - held.ports):
                yield f"{one.name} runs without its ports {', '.join(sorted(lacking))}"
