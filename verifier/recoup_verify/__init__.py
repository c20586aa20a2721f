"""Checks what Recoup claims, offline, with no code of Recoup's own and no access to it."""
