"""The pure part of the broker: the base credential, what each purpose may do, single use."""
