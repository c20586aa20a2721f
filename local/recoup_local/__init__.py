"""Recoup's embedded one-machine mesh: everything that must never reach production lives in this wheel."""
