"""The history of the audit schema, forward only."""
