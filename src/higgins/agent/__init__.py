"""What runs on each host: it compares what the host should hold with what it holds, and takes idempotent steps.

``plan`` decides (pure), ``effects`` does, ``worker`` repeats both for one workload until nothing is left to do, and
``agent`` feeds the workers from the control plane, from the engine's events and from a full comparison now and then.
A crash between any two steps is repaired by the next pass.
"""
