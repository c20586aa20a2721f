"""Making, verifying and restoring a backup."""
