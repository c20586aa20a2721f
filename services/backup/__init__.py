"""Backups of the installation's two databases: made, verified and restored by an operator. See docs/BACKUP.md."""
