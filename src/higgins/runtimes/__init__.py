"""The container engines of a host, behind one interface."""
