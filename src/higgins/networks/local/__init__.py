"""The network driver of one machine: Linux bridges and veths, filtered by nftables.

One bridge per network carries the gateway's address, each port is a veth into it, and two nftables tables of our own
decide who reaches whom. See ``driver`` for the verbs, ``rules`` for the filters, ``wires`` for
names, ``plumbing`` for what the kernel is asked.
"""

from higgins.networks.local.driver import open_local_network

__all__ = ["open_local_network"]
