"""What a backup is: its manifest, and how its parts are sealed. Pure."""
