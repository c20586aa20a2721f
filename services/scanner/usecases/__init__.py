"""What the scanner's API decides, one function a decision."""
