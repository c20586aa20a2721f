"""Generated from the protos."""
