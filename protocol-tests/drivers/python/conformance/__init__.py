"""Driver programs of the conformance suite, one module a driver (../../README.md)."""
