"""nftables by its library, inside the process."""

import subprocess
import sys

_WITHOUT_DESCRIPTORS = """
import resource
from higgins.model.errors import EngineError
from higgins.networks.local.nftables import nft
try:
    nft("list tables")
except EngineError:  # it may not be root; the library is loaded now
    pass
for left in range(2):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + left, 64))
    try:
        nft("list tables")
    except EngineError as error:
        print(error)
"""


def test_a_process_without_descriptors_is_told_so_and_goes_on() -> None:
    """The library itself would end it."""
    ended = subprocess.run([sys.executable, "-c", _WITHOUT_DESCRIPTORS], text=True, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["The host cannot filter: Too many open files."] * 2
