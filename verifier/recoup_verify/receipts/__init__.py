"""Checks a receipt: every byte of its bundle, who did what in which order, and that all of it agrees."""
