"""``python -m tests.hosts.chaos [seconds] [seed]``, within ``scripts/apart``: see ``make chaos``."""

import random
import sys
import tempfile
from pathlib import Path

from tests.engines.images import busybox
from tests.hosts.chaos.run import chaos


def main(words: list[str]) -> int:
    """The exit code: 1 where something was found."""
    seconds = float(words[0]) if words else 60.0
    seed = int(words[1]) if len(words) > 1 else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="image") as directory:
        image = Path(directory) / "busybox.tar"
        image.write_bytes(busybox())
        found = chaos(image, seconds, seed, tell=lambda words: print(words, flush=True))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
