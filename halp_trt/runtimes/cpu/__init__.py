"""Timing on a processor: rounds of profiled kernels, and calls that have settled."""
