"""What identity decides, one function a decision."""
