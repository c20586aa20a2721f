"""The history of the scanner schema, forward only."""
