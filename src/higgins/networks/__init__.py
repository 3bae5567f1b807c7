"""How sandboxes get onto networks."""
