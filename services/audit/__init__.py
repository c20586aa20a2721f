"""Owns the append-only log: what was done, by whom, provably."""
