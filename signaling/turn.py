"""Credentials for a TURN server that shares a secret with us (coturn: use-auth-secret)."""

import base64
import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What goes into --turn-user and --turn-password."""

    user: str
    password: str


def turn_credentials(secret: str, now_s: float, lifetime_s: int) -> TurnCredentials:
    """Credentials that hold for `lifetime_s` from `now_s`, a Unix time.

    Source: draft-uberti-behave-turn-rest-00 section 2.2: the user name is the time of expiry, the password
    the base64 of its HMAC-SHA1 under the secret.
    """
    user = f"{int(now_s) + lifetime_s}:avcall"
    digest = hmac.new(secret.encode(), user.encode(), hashlib.sha1).digest()
    return TurnCredentials(user, base64.b64encode(digest).decode())
