"""``make chaos``: every process is killed at random under load, and a checker tells whether anything came of it.

``load`` asks for things over HTTP and records what it was told; ``faults`` kills and cuts; ``cloud`` is what they do it
to, and looks at what is there afterwards; ``history`` compares the two, and is pure.
"""
