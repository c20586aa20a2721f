"""Computes a saving anew, by METHOD.md, from the rows that a measurement carries. Knows nothing of logs or receipts."""
