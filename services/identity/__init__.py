"""Says who is asking, for which organization, and what may no longer be trusted."""
