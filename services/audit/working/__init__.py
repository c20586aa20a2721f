"""What audit-worker does: it makes bundles of evidence, and deletes them when their time is over."""
