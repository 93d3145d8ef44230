"""What to do next with a running cluster, as text. Must not do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.cluster import images
from integration.kind.places import ENVIRONMENT, NAME
from integration.tools import tools

if TYPE_CHECKING:
    from integration.kind.docker import Docker
    from integration.screen import Screen

_NEXT = """
  . {environment}     KUBECONFIG and PATH for kubectl, helm, kind and docker

  kubectl get nodes,pods --all-namespaces --output=wide
  kubectl run web --image={image} -- netexec --http-port=8080
  kubectl get pod web --output=wide            its address belongs to its node's NIC
  docker exec {node} /opt/cni/bin/azvnet status
  docker exec {node} /opt/cni/bin/azvnet show NAMESPACE/POD

  cnitool on a node, next to running pods (never `cnitool gc`: it would delete their networks):
  docker cp {cnitool} {node}:/usr/local/bin/
  docker exec {node} ip netns add trial
  docker exec -e CNI_PATH=/opt/cni/bin -e NETCONFPATH=/etc/cni/net.d {node} \\
      cnitool add azvnet /run/netns/trial

  make kind-reload      load a changed build and roll it out
  make kind-down        delete the cluster and everything that belongs to it
"""
_ELSEWHERE = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def show(screen: Screen, docker: Docker) -> None:
    """Print it."""
    image = images.e2e_names()["agnhost"] if docker.own else _ELSEWHERE  # ours has no registry
    node = f"{NAME}-control-plane"
    screen.line(_NEXT.format(environment=ENVIRONMENT, image=image, node=node, cnitool=tools() / "cnitool"))
