"""Key services: the one interface that wraps and unwraps key material, and a provider for each of them."""
