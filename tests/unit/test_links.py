"""Interfaces of the host as they are seen."""

import subprocess
import sys

from higgins.networks import links

_WITHOUT_DESCRIPTORS = """
import resource
from higgins.networks import links
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 64))
print(links.there("lo"))
"""


def test_an_interface_is_there_or_not() -> None:
    assert links.there("lo")
    assert not links.there("hg0123456789ab")


def test_who_cannot_look_does_not_say_that_an_interface_is_gone() -> None:
    """What is not there any more is not taken away again."""
    ended = subprocess.run([sys.executable, "-c", _WITHOUT_DESCRIPTORS], text=True, capture_output=True, check=False)
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1] == "OSError: [Errno 24] Too many open files"
