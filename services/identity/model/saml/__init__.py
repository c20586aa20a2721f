"""SAML 2.0, the pure part: what a document must be before it is looked at, what is signed, what it says."""
