"""How fast Higgins is, as ratios and rates that one run measures side by side.

``make bench`` runs all of them in namespaces of their own; ``python -m benchmarks create --count 50`` runs one where
whoever calls it stands. Figures depend on the machine; ratios within one run much less so.
"""
