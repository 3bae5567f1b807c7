"""Storage that outlives a container, and files put into it."""
