"""Images that do not come from a registry: found, checked, and made into what a container engine loads."""
