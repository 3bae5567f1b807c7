"""Every error a tenant may see, as a type with a status, a code and one sentence.

``code`` is the part behind ``container.`` in the API's error envelope; the codes that Zun's clients know keep
Zun's names. ``str(error)`` is the tenant's sentence: what was wrong and where. The operator's cause travels as
``__cause__`` and goes to the log only.
"""


class HigginsError(Exception):
    """The base of all. ``status`` is the HTTP status, ``code`` the kebab-case name of the kind."""

    status = 500
    code = "internal-error"


class Invalid(HigginsError):
    """A value that no request may carry."""

    status = 400
    code = "invalid-value"


class SchemaInvalid(Invalid):
    """A body or query that does not fit its schema; the sentence names the field."""

    code = "schema-validation-error"


class ParamTooNew(Invalid):
    """A field that a later microversion brings."""

    code = "invalid-param-in-version"


class InvalidSortKey(Invalid):
    """A list cannot be sorted by that key."""

    code = "invalid-parameter-value"


class NotInteractive(Invalid):
    """Attach was asked of a container that keeps no standard input open."""

    code = "no-interactive-flag"


class Unauthorized(HigginsError):
    """No identity, or a wrong one."""

    status = 401
    code = "unauthorized"


class Forbidden(HigginsError):
    """The policy refuses; the sentence names the rule."""

    status = 403
    code = "policy-not-authorized"


class OverQuota(HigginsError):
    """The project's quota has no room; the sentence names the resources."""

    status = 403
    code = "over-quota"


class NotFound(HigginsError):
    """Nothing of that name or uuid that this caller may see."""

    status = 404

    def __init__(self, kind: str, name: str) -> None:
        self.code = f"{kind.replace('_', '-')}-not-found"
        super().__init__(f"{kind.replace('_', ' ').capitalize()} {name} could not be found.")


class MethodNotAllowed(HigginsError):
    status = 405
    code = ""


class NotAcceptable(HigginsError):
    """The requested microversion does not exist, or does not have this call."""

    status = 406
    code = "microversion-unsupported"


class Conflict(HigginsError):
    status = 409
    code = "conflict"


class AlreadyExists(Conflict):
    def __init__(self, kind: str, name: str) -> None:
        self.code = f"{kind.replace('_', '-')}-already-exists"
        super().__init__(f"A {kind.replace('_', ' ')} with the name {name} already exists.")


class InvalidState(Conflict):
    """The container is in a state in which this cannot be done."""

    code = "invalid-state-exception"

    def __init__(self, uuid: str, action: str, status: str) -> None:
        super().__init__(f"Cannot {action} container {uuid} while it is {status}.")


class TooLarge(HigginsError):
    status = 413
    code = "request-entity-too-large"


class Unsupported(HigginsError):
    """The body is of a type that is not understood here."""

    status = 415
    code = "unsupported-media-type"


class NotImplementedHere(HigginsError):
    """The engine or driver of this host cannot do that at all; the sentence names it."""

    status = 501
    code = "not-implemented"


class HostUnavailable(HigginsError):
    """The host that holds the container does not answer now; asking again later may help."""

    status = 503
    code = "host-unavailable"


class StoreUnavailable(HigginsError):
    """The database does not answer now. Nothing was changed; asking again later may help."""

    status = 503
    code = "database-unavailable"


class OutcomeUnknown(StoreUnavailable):
    """The database went away while a change was being committed: it may be there or not."""

    code = "outcome-unknown"


class EngineError(HigginsError):
    """The container engine refused or failed. The sentence is the engine's own, made fit for a tenant."""

    status = 500
    code = "engine-error"


class EngineUnavailable(EngineError):
    """The engine does not answer; nothing is known about its containers until it does."""

    status = 503
    code = "engine-unavailable"


class ImageNotFound(EngineError):
    """No image of that name in the registry or on the host."""

    status = 400
    code = "image-not-found"


class ImagePullFailed(EngineError):
    """The image exists perhaps, but could not be fetched."""

    status = 500
    code = "image-pull-failed"


class ImageRefused(EngineError):
    """The image is there, but its content is not fit to be run, or not any more; the sentence says why."""

    status = 400
    code = "image-refused"

    def __init__(self, why: str) -> None:
        super().__init__(f"The image is refused: {why}.")


class ContainerGone(EngineError):
    """The engine does not know the container."""

    status = 404
    code = "container-not-found"


class SandboxGone(EngineError):
    """The engine does not know the sandbox that a container is bound to; only another container can take its place."""


class PathNotFound(EngineError):
    """No such path inside the container."""

    status = 404
    code = "path-not-found"
