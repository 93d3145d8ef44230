"""Proof against the real things: an emulated Azure network, container runtimes, Kubernetes."""
