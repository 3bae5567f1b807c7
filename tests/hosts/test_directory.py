"""Where names lead that hosts and the control plane connect to."""

import subprocess
import sys

#: A machine whose only address beside those of loopback is an IPv6 one.
_MACHINE = """
ip link set lo up
ip link add one type veth peer name other
ip address add fd00::1/64 dev one nodad
ip link set one up
ip link set other up
exec "$@"
"""

_LOOK_UP = """
import asyncio
from higgins.control.tls import Directory

async def look_up() -> None:
    directory = Directory()
    directory.places["someone"] = "127.0.0.1"
    print([found["host"] for found in await directory.resolve("someone", 9519)])

asyncio.run(look_up())
"""


def test_loopback_is_found_on_a_machine_with_no_other_ipv4_address() -> None:
    asked = subprocess.run(
        ["unshare", "--net", "sh", "-euc", _MACHINE, "sh", sys.executable, "-c", _LOOK_UP],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (asked.stdout, asked.stderr) == ("['127.0.0.1']\n", "")
