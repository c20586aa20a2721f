"""Typed client of Recoup's mesh, and the `recoup` command line."""
