"""A nemesis for the log: who appends through it, what befalls it meanwhile, and what must hold afterwards."""
