"""Runs the migrations of the subjects' keys, in their own database; see services/_mesh/migrate.py."""

from services._mesh.migrate import run_env

run_env()
