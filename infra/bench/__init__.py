"""Benchmarks: each is a `make bench-NAME` target, prints a table and writes `build/bench/NAME.json`."""
