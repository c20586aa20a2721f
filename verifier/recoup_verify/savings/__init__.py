"""Checks a savings receipt: its documents, its events in the log, and its amounts, computed anew by METHOD.md."""
