"""The pure part of the log: the Merkle tree, signed notes, leaves."""
