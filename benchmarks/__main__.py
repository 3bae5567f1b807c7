"""``python -m benchmarks WHAT``: measure, and print a table in Markdown."""

import argparse
import os
import sys
from collections.abc import Iterable

from benchmarks import agents, api, create, density, placement, scale, startup
from benchmarks.table import Table

WHAT = ("startup", "create", "api", "density-docker", "density-containerd", "scale", "placement", "agents", "neutron")


def main() -> int:
    """Run the measurement that was named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Higgins; a table in Markdown.")
    parser.add_argument("what", choices=WHAT)
    parser.add_argument(
        "--count", type=int, default=30, help="how often, for startup (5 at most), create and neutron (default: 30)"
    )
    parser.add_argument(
        "--seconds", type=float, help="how long each rate is measured for (default: 0.7; for placement 10)"
    )
    parser.add_argument(
        "--databases", nargs="+", choices=list(api.KINDS), default=list(api.KINDS), help="on which, for api"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=list(api.SIZES), help="containers there are, for api")
    parser.add_argument("--idle", type=float, help="seconds of idling (default: for density 120, for agents 30)")
    parser.add_argument(
        "--hosts", nargs="+", type=int, default=list(placement.HOSTS), help="how many there are, for placement"
    )
    parser.add_argument("--agents", type=int, default=5000, help="how many wait, for agents (default: 5000)")
    options = parser.parse_args()
    if os.environ.get("HIGGINS_TEST_NAMESPACE") != "1":
        parser.error(
            "this makes bridges, rules and mounts: run it with make bench, or scripts/apart python -m benchmarks …"
        )
    seconds = options.seconds or 0.7
    tables: Iterable[Table]
    if options.what == "startup":
        tables = [startup.measure(min(options.count, 5))]
    elif options.what == "create":
        tables = create.measure(options.count)
    elif options.what.startswith("density-"):
        tables = [density.measure(options.what.removeprefix("density-"), options.idle or 120)]
    elif options.what == "scale":
        tables = [scale.measure(seconds)]
    elif options.what == "placement":
        tables = placement.measure(options.seconds or 10, options.hosts)
    elif options.what == "neutron":
        from benchmarks import neutron  # what it needs of OpenStack's libraries is not needed by the others

        tables = neutron.measure(options.count)
    elif options.what == "agents":
        tables = [agents.measure(options.agents, options.idle or 30)]
    else:
        tables = api.measure(seconds, options.databases, options.sizes)
    for table in tables:
        print(table.markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
