"""Puts tests/ on the path, for `fakes`."""
