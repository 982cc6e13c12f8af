"""Who may ask on the admin port: a token for programs, a cookie that a log-in with it gives for browsers."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from budget_guard.clock import Clock

COOKIE = "budget_guard_admin"
"""The cookie of a log-in."""
SESSION_S = 12 * 3_600
"""Seconds that a log-in lasts."""


class Access:
    """Tells operators from others. Everything is compared in constant time.

    Args:
        token: What operators prove themselves with; None where whoever is on this machine is one.
        clock: Where time comes from.
    """

    def __init__(self, token: str | None, clock: Clock) -> None:
        self._digest = None if token is None else _digest(token)
        self._secret = secrets.token_bytes(32) if token is None else hashlib.sha256(b"session:" + _raw(token)).digest()
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return self._digest is None

    def is_token(self, given: str | None) -> bool:
        """Whether *given* is the token, or none is asked for."""
        if self._digest is None:
            return True
        return hmac.compare_digest(_digest(given or ""), self._digest)

    def begin(self) -> str:
        """The value of the cookie for one who has just proved himself."""
        ends = str(int(self._clock.now().timestamp()) + SESSION_S)
        return f"{ends}.{self._signed('cookie', ends)}"

    def is_session(self, cookie: str | None) -> bool:
        """Whether *cookie* is one that was given, and still lasts, or none is asked for."""
        if self.is_open:
            return True
        ends, _, signature = (cookie or "").partition(".")
        if not hmac.compare_digest(signature.encode(), self._signed("cookie", ends).encode()):
            return False
        return self._clock.now().timestamp() < int(ends)  # a number, as it is signed

    def form_token(self, cookie: str | None) -> str:
        """What a form must carry, so that only our own pages can have sent it."""
        return self._signed("form", "" if self.is_open else cookie or "")

    def is_form_token(self, given: str, cookie: str | None) -> bool:
        """Whether *given* is what a form of that log-in carries."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.form_token(cookie).encode())

    def _signed(self, use: str, text: str) -> str:
        return hmac.new(self._secret, f"{use}:{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def cookie_of(header: bytes | None) -> str | None:
    """The value of our cookie in a header; None where there is none."""
    for pair in (header or b"").decode("latin-1").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(_raw(token)).digest()


def _raw(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
