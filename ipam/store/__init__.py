"""The SQLite file of the node."""
