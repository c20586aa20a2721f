"""The processes of Recoup, one package each; `_mesh` is the plumbing that they share."""
