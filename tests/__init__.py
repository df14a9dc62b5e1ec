"""Tests of edgehmn. A package, so that test modules share `tests.oracle` and `tests.models`."""
