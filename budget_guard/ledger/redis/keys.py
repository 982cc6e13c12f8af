"""The keys of everything that a tenant has in Redis.

Every key begins with the tenant in braces, so all keys of a tenant live in one slot of a cluster. Ids are quoted, so no
id can end a key early, reach into another tenant's slot, or look like another id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

from budget_guard.units.scope import Scope

_SPECIAL = re.compile(rb"[\\*?\[\]^-]")
"""What has a meaning in a pattern."""
_READABLE = 100
"""Quoted ids that are longer are replaced by a hash of theirs."""


class Named(NamedTuple):
    """The keys and the name of a tuple of scopes."""

    keys: tuple[bytes, ...]
    text: bytes
    """Their kinds and ids as JSON, the same for the same scopes in the same order."""


class Keys:
    """The keys of one tenant.

    Raises:
        ValueError: If *tenant* is empty: an empty tag does not keep keys together.
    """

    def __init__(self, tenant: str) -> None:
        if not tenant:
            raise ValueError("tenant='' is empty: name whose ledger it is")
        self._prefix = f"budget:{{{_quoted(tenant)}}}:".encode()
        self.tenant = self._prefix + b"tenant"
        """Epoch, sequence, version and watermark."""
        self.scopes = self._prefix + b"scopes"
        """The names of all scopes."""
        self.open = self._prefix + b"open"
        """The ids of open holds, by the time at which they expire."""
        self.suspended = self._prefix + b"suspended"
        """The ids of suspended holds, by the time since which they are."""
        self.settled = self._prefix + b"settled"
        """The ids of settled holds that are remembered, oldest first."""
        self.named = lru_cache(maxsize=4_096)(self._named)
        """The keys and the name of a tuple of scopes."""

    def hold(self, hold_id: str) -> bytes:
        """The key of a hold's record."""
        return self._prefix + b"hold:" + encode(hold_id)

    def text(self, name: str) -> bytes:
        """The key of a text that is kept with `swap`."""
        return self._prefix + b"text:" + encode(name)

    def scope(self, scope: Scope) -> bytes:
        """The key of a scope's counters."""
        return self._prefix + f"scope:{_quoted(scope.kind)}:{_quoted(scope.id)}".encode()

    def _named(self, scopes: tuple[Scope, ...]) -> Named:
        return Named(tuple(map(self.scope, scopes)), json.dumps(scopes, separators=(",", ":")).encode())


def encode(text: str) -> bytes:
    """*text* as bytes; half a surrogate pair is text as well."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The text that `encode` made *data* of."""
    return data.decode("utf-8", "surrogatepass")


def scopes_of(text: bytes) -> tuple[Scope, ...]:
    """The scopes whose `Named.text` is *text*."""
    pairs: Sequence[Any] = json.loads(text)
    return tuple(Scope(kind, id) for kind, id in pairs)


def name_pattern(kind: str, prefix: str) -> bytes:
    """A pattern that matches the `Named.text` of every scope of a kind whose id begins with *prefix*."""
    begins = f"[[{json.dumps(kind)},{json.dumps(prefix)[:-1]}".encode()
    return _SPECIAL.sub(rb"\\\g<0>", begins) + b"*"


def _quoted(text: str) -> str:
    quoted = quote(encode(text), safe="")
    if len(quoted) <= _READABLE:
        return quoted
    # quote() makes no "%-", so no short id looks like a hash
    return "%-" + hashlib.blake2b(encode(text), digest_size=20).hexdigest()
