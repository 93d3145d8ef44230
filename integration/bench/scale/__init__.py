"""A thousand nodes and 30,000 pods: the operator with a real API server and an emulated Azure."""
