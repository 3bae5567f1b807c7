"""Failures of OpenStack's other services, as a tenant may read them."""

from higgins.model.errors import HigginsError


class ServiceUnavailable(HigginsError):
    """Another service does not answer, or not sensibly. Nothing was changed; asking again later may help."""

    status = 503
    code = "service-unavailable"

    def __init__(self, service: str, doing: str) -> None:
        super().__init__(f"{service} does not answer now, so {doing}; try again later.")
