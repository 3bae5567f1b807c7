"""The network driver of one machine: Linux bridges wired by the stock CNI plugins, filtered by nftables.

One bridge per network carries the gateway's address, each port is a veth into it, and two nftables tables of our own
decide who reaches whom. See ``driver`` for the verbs, ``rules`` for the filters, ``wires`` for names and plugin input.
"""

from higgins.networks.cni.driver import open_cni

__all__ = ["open_cni"]
