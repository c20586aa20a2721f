"""The scanner's peers and the cloud."""
