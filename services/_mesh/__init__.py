"""Plumbing that every process of the mesh shares: configuration, mTLS, authority, errors, units of work,
jobs, telemetry.

It knows no service and no domain noun, and imports no service.
"""
