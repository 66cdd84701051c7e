"""Measures securews and its peers: `scripts/bench`. docs/benchmarks.md is the method."""
