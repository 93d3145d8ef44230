"""A fabric and an API server for agents that write their own NICs, or have the operator write them.

A test module that uses them says which nodes it needs (``SCENES``, a node for each) and what there is in the
API server (``prepare``). Owns bringing both up and down. It must not know what is tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.cluster.apiserver import ApiServer
from integration.fabric import Fabric
from integration.fabric.armroles import NIC_WRITER

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """A node for each of the module's ``SCENES``; its identity may write NICs."""
    with Fabric(nodes=len(request.module.SCENES), addresses=2, vnet_hosts=2, imds_limit=None) as made:
        made.arm.roles.give(NIC_WRITER)
        yield made


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """An API server on a machine of the virtual network, prepared by the module's ``prepare``."""
    with ApiServer(fabric.vnet_hosts["vm2"], tmp_path_factory.mktemp("api")) as made:
        request.module.prepare(made)
        yield made
