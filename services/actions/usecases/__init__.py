"""What the API of actions decides, one function a decision."""
