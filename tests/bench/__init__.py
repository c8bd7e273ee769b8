"""Benchmarks on the lab; `make bench` runs them. Nothing here decides whether a test passes."""
