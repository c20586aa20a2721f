"""The calls that actions make to the cloud."""
