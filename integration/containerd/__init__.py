"""A real containerd inside an emulated node, and the CRI to drive it."""

from integration.containerd.cri import Condition, Cri, CriError, Executed, Pod
from integration.containerd.daemon import Containerd, ContainerdError
from integration.containerd.images import PAUSE_IMAGE, TRAFFIC_IMAGE

__all__ = [
    "PAUSE_IMAGE",
    "TRAFFIC_IMAGE",
    "Condition",
    "Containerd",
    "ContainerdError",
    "Cri",
    "CriError",
    "Executed",
    "Pod",
]
