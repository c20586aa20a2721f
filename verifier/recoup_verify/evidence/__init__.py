"""Checks an evidence bundle: its files, its seal, and that its events are all that an organization has."""
