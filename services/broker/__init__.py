"""The one process that opens a sealed credential, and only to turn it into a short-lived session."""
