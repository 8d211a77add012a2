"""Benchmarks of others and the project's own domains: their data, protocol and measure, and published figures."""
