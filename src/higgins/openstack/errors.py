"""Failures of OpenStack's other services, as a tenant may read them."""

from higgins.model.errors import HigginsError


class ServiceUnavailable(HigginsError):
    """Another service does not answer, or not sensibly. Nothing was changed; asking again later may help.

    ``waiting`` is the sentence for one who need not ask again, since Higgins does.
    """

    status = 503
    code = "service-unavailable"
    waiting = ""

    def __init__(self, service: str, doing: str, says: str = "does not answer now") -> None:
        super().__init__(f"{service} {says}, so {doing}; try again later.")
        self.waiting = f"{service} {says}, so {doing}; it is tried again."


class NotInCatalogue(ServiceUnavailable):
    """Keystone knows no endpoint of a service in this region."""

    def __init__(self, service_type: str) -> None:
        HigginsError.__init__(self, f"The {service_type} service is not in Keystone's catalogue of this region.")


class ServiceBusy(ServiceUnavailable):
    """Another service is still at work on what is wanted; it is to be awaited."""

    def __init__(self, sentence: str) -> None:
        HigginsError.__init__(self, sentence)


class ServiceRefused(HigginsError):
    """Another service says no, in its own words. ``final``: it will say so again until something else changes."""

    status = 409
    code = "service-refused"

    def __init__(self, service: str, doing: str, says: str, *, final: bool = True) -> None:
        super().__init__(f"{service} refuses, so {doing}: {says.strip().rstrip('.')}.")
        self.final = final
