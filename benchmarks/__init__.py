"""likelier against TRL, in one run on one machine: `python -m benchmarks.bench` (see README.md)."""
