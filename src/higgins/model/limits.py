"""Limits of projects that are kept outside the database, as Keystone's unified limits are.

A transaction cannot wait for another service: it would hold its locks meanwhile. So it takes the limits that are known
already; where there are none, it is given up, they are learnt, and it runs again (``higgins.control.quotas``).
"""

from typing import Protocol


class LimitsUnknown(Exception):
    """The limits of this project are not known yet, or no longer."""

    def __init__(self, project_id: str) -> None:
        super().__init__(project_id)
        self.project_id = project_id


class Limits(Protocol):
    """A keeper of limits, by resource; -1 is no limit."""

    def known(self, project_id: str) -> dict[str, int]:
        """What was learnt a short while ago; never waits. Raises LimitsUnknown."""

    async def learn(self, project_id: str) -> None:
        """Ask for them, so that they are known for a while. Raises a HigginsError where the keeper does not answer."""

    async def defaults(self) -> dict[str, int]:
        """The limits of a project that has none of its own."""
