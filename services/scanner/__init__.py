"""Connects clouds, reads them, and says what could be recovered."""
