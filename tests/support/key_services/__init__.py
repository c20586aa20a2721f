"""Thin local fakes of AWS KMS, Azure Key Vault and Google Cloud KMS, spoken to by their official SDKs.

They know one key each with two versions, do real cryptography, and answer as their service does for what `state` says.
DENIED is a state like the others; Azure's and Google's fakes also hold callers to the rights of a role.
"""
