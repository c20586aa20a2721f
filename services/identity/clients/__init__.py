"""What identity asks of others: the session issuer's public keys."""
