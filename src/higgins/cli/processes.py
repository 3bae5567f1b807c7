"""What every process of Higgins does: log, and end when it is told to."""

import asyncio
import gc
import logging
import signal
import sys


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def starting() -> None:
    """What a start makes stays: the collector of garbage, which would look through it dozens of times, waits."""
    gc.disable()


def settled() -> None:
    """The start is over, and the collector need never look through what it has made.

    It did so about once for each list of a thousand containers, and took as long as the list itself.
    """
    gc.freeze()
    gc.enable()


def told_to_end() -> asyncio.Event:
    """Set once the process is told to end (SIGTERM, SIGINT)."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
