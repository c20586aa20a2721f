"""The history of the pricing schema, forward only."""
