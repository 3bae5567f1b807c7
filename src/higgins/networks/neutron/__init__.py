"""The network driver of a cloud with Neutron: each port is a veth into Open vSwitch's integration bridge.

The switch filters (security groups are flows of OVN) and says when a port is wired; nothing of Neutron is asked here.
"""

from higgins.networks.neutron.driver import open_neutron

__all__ = ["open_neutron"]
