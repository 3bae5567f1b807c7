"""``python -m benchmarks startup|create|api``: measure, and print a table in Markdown."""

import argparse
import asyncio
import os
import sys

from benchmarks import api, create, startup
from benchmarks.table import Table


def main() -> int:
    """Run the measurement that was named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Higgins; a table in Markdown.")
    parser.add_argument("what", choices=["startup", "create", "api"])
    parser.add_argument(
        "--count", type=int, default=30, help="how often, for startup (5 at most) and create (default: 30)"
    )
    parser.add_argument("--seconds", type=float, default=3, help="how long each rate is measured for (default: 3)")
    parser.add_argument("--containers", type=int, default=1000, help="the longest list, for api (default: 1000)")
    options = parser.parse_args()
    if os.environ.get("HIGGINS_TEST_NAMESPACE") != "1":
        parser.error(
            "this makes bridges, rules and mounts: run it with make bench, or scripts/apart python -m benchmarks …"
        )
    tables: list[Table]
    if options.what == "startup":
        tables = [startup.measure(min(options.count, 5))]
    elif options.what == "create":
        tables = create.measure(options.count)
    else:
        tables = [asyncio.run(api.measure(options.seconds, options.containers))]
    for table in tables:
        print(table.markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
