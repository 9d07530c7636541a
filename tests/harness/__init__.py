"""Starts, breaks and stops real Ceph clusters on the loopback address, for tests, benchmarks and demonstrations.

`harness.cluster.Cluster` is a whole cluster (monitors, managers, OSDs) in one directory; `harness.releases` says which
Ceph releases can run here and how; `python -m harness` does the same by hand.
"""
