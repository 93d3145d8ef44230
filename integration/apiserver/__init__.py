"""Tests with a real API server, or CoreDNS, and without a kubelet: the layer ``apiserver``."""
