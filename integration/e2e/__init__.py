"""End to end: a real Kubernetes on emulated nodes of Azure."""
