"""Tests of a real kind cluster: the layer ``kind``."""
