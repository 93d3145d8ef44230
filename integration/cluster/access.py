"""Who may do what in a cluster: certificates, the key of service accounts, kubeconfigs.

Owns the authority of one cluster; its key never leaves this process except into the machine of the
control plane. Must not know who uses the files. What the names mean: Kubernetes' documentation, "PKI
certificates and requirements".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import trustme

_NO_SERVER = "client.invalid"


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with the key of it, both PEM."""

    certificate: str
    key: str


class Authority:
    """Issues the certificates of one cluster."""

    def __init__(self, name: str) -> None:
        self._ca = trustme.CA(organization_name="azvnet tests", organization_unit_name=name)
        self.certificate: str = self._ca.cert_pem.bytes().decode("ascii")
        self.key: str = self._ca.private_key_pem.bytes().decode("ascii")

    def issue(self, user: str, group: str = "", *names: str) -> Credential:
        """A certificate for a user and group of Kubernetes, and for a server with these names."""
        # An empty list of names would be a critical extension that Go's verifier does not accept.
        leaf = self._ca.issue_cert(
            *(names or [_NO_SERVER]), common_name=user, organization_name=group or None
        )
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return Credential(chain.decode("ascii"), leaf.private_key_pem.bytes().decode("ascii"))

    def kubeconfig(self, server: str, credential: Credential, *, user: str) -> str:
        """A kubeconfig, in JSON, that holds all it needs."""
        document: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "azvnet",
                    "cluster": {"server": server, "certificate-authority-data": _encoded(self.certificate)},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _encoded(credential.certificate),
                        "client-key-data": _encoded(credential.key),
                    },
                }
            ],
            "contexts": [{"name": "azvnet", "context": {"cluster": "azvnet", "user": user}}],
            "current-context": "azvnet",
        }
        return json.dumps(document, indent=1)


def _encoded(text: str) -> str:
    import base64

    return base64.b64encode(text.encode("ascii")).decode("ascii")
