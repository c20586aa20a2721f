"""What is read of the databases that are backed up, and written into those that are restored."""
