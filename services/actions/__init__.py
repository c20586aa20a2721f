"""Gets savings approved, executed with least privilege, and measured."""
