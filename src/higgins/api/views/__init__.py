"""How things are shown: one function per noun, from a read model to what goes into the JSON."""
