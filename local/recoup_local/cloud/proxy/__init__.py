"""The recording proxy in front of moto: what AWS enforces and moto doesn't, faults, and the recording.

Run it as `python -m recoup_local.cloud.proxy`; it must never reach a production image.
"""
