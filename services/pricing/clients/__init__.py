"""Whom pricing asks: its peers, and the provider's bucket."""
