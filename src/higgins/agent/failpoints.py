"""Points at which a test has the agent die, as a machine would: at once and without a word.

``HIGGINS_FAILPOINT=CreateContainer:after`` kills the process right after that step was done for the first time, and
``StartContainer:before:3`` before it is done for the third time. Each point that is passed is named in the log, so that
a test learns which there are.
"""

import logging
import os
import signal
from collections.abc import Mapping
from typing import Literal

LOG = logging.getLogger(__name__)

When = Literal["before", "after"]
VARIABLE = "HIGGINS_FAILPOINT"


class Failpoint:
    """Dies at its ``count``-th passing."""

    def __init__(self, step: str, when: str, count: int) -> None:
        self._point = (step, when)
        self._left = count

    def reach(self, step: str, when: When) -> None:
        """The agent is at this point now."""
        LOG.info("Passing %s:%s", step, when)
        if (step, when) == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def from_environment(environment: Mapping[str, str] = os.environ) -> Failpoint | None:
    """The failpoint that was asked for; None, and no cost at all, where there is none."""
    text = environment.get(VARIABLE)
    if not text:
        return None
    step, when, *count = text.split(":")
    if when not in ("before", "after"):
        raise ValueError(f"{VARIABLE} must read <step>:before or <step>:after, not {text}.")
    return Failpoint(step, when, int(count[0]) if count else 1)
