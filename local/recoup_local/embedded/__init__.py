"""PostgreSQL and NATS from their wheels, as children of the process that needs them."""
