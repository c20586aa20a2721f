"""Between identity's messages and its model."""
