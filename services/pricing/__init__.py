"""What things cost: by the catalogue, and by the bill."""
