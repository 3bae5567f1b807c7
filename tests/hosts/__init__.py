"""Hosts that join over the network: authority, joining, link and streams, over real TLS."""
