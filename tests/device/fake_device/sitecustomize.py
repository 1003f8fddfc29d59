"""Run by Python before everything: the host's clock of enqueueing stands still, so that rows are equal to the bit."""

import time

if __import__("os").environ.get("FAKE_FAULTS") is not None:
    time.perf_counter_ns = lambda: 0
