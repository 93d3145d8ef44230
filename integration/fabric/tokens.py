"""Access tokens: made for IMDS and the login endpoint, checked by ARM. No state but a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any


class TokenRefused(Exception):
    """A token is no good; carries the error code that ARM answers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its times, in seconds since the epoch."""

    text: str
    not_before: int
    expires_on: int


class TokenIssuer:
    """Makes and checks tokens that look like the platform's (JWT), signed with a secret of its own."""

    def __init__(self, lifetime: int = 3599) -> None:
        self.lifetime = lifetime
        """Seconds."""
        self._secret = secrets.token_bytes(32)

    def revoke_all(self) -> None:
        """Let no token made so far be good any more."""
        self._secret = secrets.token_bytes(32)

    def issue(self, audience: str, *, client_id: str, object_id: str, tenant: str) -> Token:
        """A token of that identity for that resource."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{tenant}/",
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "appid": client_id,
            "oid": object_id,
            "tid": tenant,
            "ver": "1.0",
        }
        head = _encode(json.dumps({"typ": "JWT", "alg": "HS256"}).encode())
        signed = f"{head}.{_encode(json.dumps(claims).encode())}"
        return Token(f"{signed}.{self._signature(signed)}", now, now + self.lifetime)

    def check(self, authorization: str | None, audiences: tuple[str, ...]) -> dict[str, Any]:
        """The claims of an ``Authorization`` header's token.

        Raises:
            TokenRefused: there is none, or it is forged, expired, or made for something else.
        """
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.casefold() != "bearer" or not text:
            raise TokenRefused(
                "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
        signed, _, signature = text.strip().rpartition(".")
        if not signed or not hmac.compare_digest(signature, self._signature(signed)):
            raise TokenRefused("InvalidAuthenticationToken", "The access token is invalid.")
        claims: dict[str, Any] = json.loads(_decode(signed.partition(".")[2]))
        if claims["exp"] <= time.time():
            raise TokenRefused("ExpiredAuthenticationToken", "The access token expiry is in the past.")
        if claims["aud"].rstrip("/") not in audiences:
            raise TokenRefused(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'.",
            )
        return claims

    def _signature(self, signed: str) -> str:
        return _encode(hmac.new(self._secret, signed.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
