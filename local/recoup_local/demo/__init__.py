"""The main job as a story, told while it happens: `recoup local demo`."""
