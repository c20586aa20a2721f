"""Benchmarks, each against a named floor in the same run. They measure and report; they assert no time."""
