"""All SQL of the scanner."""
