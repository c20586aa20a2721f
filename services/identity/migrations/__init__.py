"""The history of the identity schema, forward only."""
