"""How latencies are taken on a processor: rounds of kernels, and calls that have settled."""
