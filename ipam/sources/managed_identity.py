"""Tokens of the machine's managed identity, from IMDS of this node and from nowhere else.

The SDK's own credential asks whichever endpoint the environment names (``IDENTITY_ENDPOINT``,
``IMDS_ENDPOINT``, ``MSI_ENDPOINT``, ``AZURE_POD_IDENTITY_AUTHORITY_HOST``: Azure Arc, App Service, Cloud
Shell, pod identity), which is never the identity of the virtual machine whose NIC is read. It must not know
what a token is for. Source: "How to use managed identities on an Azure VM to acquire an access token".
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ipam.errors import SourceUnreadable
from ipam.sources.http import Get, get

API_VERSION = "2018-02-01"
SECONDS = 10.0
"""Seconds for one token, retries included."""


class Token(NamedTuple):
    """An access token as ``azure.core.credentials.AccessToken`` has it."""

    token: str
    expires_on: int
    """Seconds since the epoch."""


class NoToken(Exception):
    """IMDS gave no token; says why, and of the answer of IMDS only its error."""


class ManagedIdentity:
    """A credential of the SDK (``azure.core.credentials.TokenCredential``)."""

    def __init__(self, imds: str, client_id: str) -> None:
        self._imds = imds.rstrip("/")
        self._client_id = client_id

    def get_token(self, *scopes: str, **_: Any) -> Token:
        """A token for the resource of one scope. Raises NoToken: there is none."""
        asked = {"api-version": API_VERSION, "resource": scopes[0].removesuffix("/.default")}
        if self._client_id:
            asked["client_id"] = self._client_id
        url = f"{self._imds}/metadata/identity/oauth2/token?{urlencode(asked)}"
        try:
            answer = get(Get("arm", url, {"Metadata": "true"}, ""), time.monotonic() + SECONDS)
        except SourceUnreadable as error:
            raise NoToken(str(error).removeprefix("source arm: ")) from error
        try:
            document = json.loads(answer)
            return Token(str(document["access_token"]), int(document["expires_on"]))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            # Not with the error's own words: they may quote the token.
            raise NoToken(f"GET {self._imds}/metadata/identity/oauth2/token: not a token document") from error
