"""Measures vdisk beside the bare librbd flow and the command line, in one run, on a cluster of its own.

``make bench`` runs it; doc/benchmarks.md tells what is measured and how to read it.
"""
