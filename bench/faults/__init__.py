"""Throughput and latency in bad weather: what each fault costs, beside the same without it, in one run."""
