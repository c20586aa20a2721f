"""Runs this service's migrations; see services/_mesh/migrate.py."""

from services._mesh.migrate import run_env

run_env()
