"""The verbs of the CNI specification, one module each. They must not know how bytes arrive."""
