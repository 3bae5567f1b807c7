"""How fast Higgins is, as ratios and rates that one run measures side by side.

``make bench`` runs all of them, ``make bench BENCH=create BENCH_ARGS="--count 50"`` one. They start engines and wire
networks, so they run only in namespaces of their own (``scripts/apart``). Figures depend on the machine; ratios within
one run much less so.
"""
