"""A real Kubernetes on the emulated Azure: what a person uses like kind, and what e2e tests use."""

from integration.cluster.client import KubectlFailed
from integration.cluster.cluster import Cluster
from integration.cluster.node import Node
from integration.cluster.program import ClusterError, wait_until

__all__ = ["Cluster", "ClusterError", "KubectlFailed", "Node", "wait_until"]
