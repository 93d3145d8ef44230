"""The verbs of the CNI specification, one module each."""
