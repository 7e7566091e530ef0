"""Parts of ``benchmarks/scheduler.py``: trace, device, simulated run, metric, table."""
