"""The history of the schema of actions, forward only."""
