"""Evidence bundles, the producer's side of verifier/FORMAT.md: what is chosen, how it is written down. Pure."""
