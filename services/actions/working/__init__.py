"""What the worker of actions does: execute, check, let expire. Each may run again after any line."""
