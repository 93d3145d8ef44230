"""Pools that follow demand on a real Kubernetes: the operator as its chart installs it."""
