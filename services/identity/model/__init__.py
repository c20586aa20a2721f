"""The pure part of identity: sessions, roles, members."""
