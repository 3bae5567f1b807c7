"""``python -m benchmarks WHAT``: measure, and print a table in Markdown."""

import argparse
import os
import sys
from collections.abc import Iterable

from benchmarks import api, create, density, scale, startup
from benchmarks.table import Table

WHAT = ("startup", "create", "api", "density-docker", "density-containerd", "scale")


def main() -> int:
    """Run the measurement that was named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Higgins; a table in Markdown.")
    parser.add_argument("what", choices=WHAT)
    parser.add_argument(
        "--count", type=int, default=30, help="how often, for startup (5 at most) and create (default: 30)"
    )
    parser.add_argument("--seconds", type=float, default=0.7, help="how long each rate is measured for (default: 0.7)")
    parser.add_argument(
        "--databases", nargs="+", choices=list(api.KINDS), default=list(api.KINDS), help="on which, for api"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=list(api.SIZES), help="containers there are, for api")
    parser.add_argument("--idle", type=float, default=120, help="seconds of idling, for density (default: 120)")
    options = parser.parse_args()
    if os.environ.get("HIGGINS_TEST_NAMESPACE") != "1":
        parser.error(
            "this makes bridges, rules and mounts: run it with make bench, or scripts/apart python -m benchmarks …"
        )
    tables: Iterable[Table]
    if options.what == "startup":
        tables = [startup.measure(min(options.count, 5))]
    elif options.what == "create":
        tables = create.measure(options.count)
    elif options.what.startswith("density-"):
        tables = [density.measure(options.what.removeprefix("density-"), options.idle)]
    elif options.what == "scale":
        tables = [scale.measure(options.seconds)]
    else:
        tables = api.measure(options.seconds, options.databases, options.sizes)
    for table in tables:
        print(table.markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
