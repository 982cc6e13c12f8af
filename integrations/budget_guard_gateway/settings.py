"""What a gateway is started with: plain values, checked, so that each of its processes is made of the same ones."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from budget_guard import Budget
from budget_guard.calls.seen import OnCancel
from budget_guard.policy.budget import OnLedgerError
from budget_guard.pricing import PriceLike
from budget_guard.pricing.model_names import FIRST_PARTY, provider_id
from budget_guard.wire.hosts import provider_of_host

OnDisconnect: TypeAlias = Literal["finish", "abort"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_OURS = ("budget", "health", "metrics", "v1", "v1beta", "openai-v1")
"""First segments of paths, which no upstream can be named."""
_SERVES = frozenset((*FIRST_PARTY, "aws", "azure", "cerebras", "fireworks", "groq", "openrouter", "together"))
"""Providers that an upstream's name may name, where its address does not say."""
_LONGEST_URL = 500
_LAST_PORT = 65_535
_LONGEST_GRACE_S = 86_400
_MOST_DAYS = 36_500
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_TOKEN = re.compile(r"[!-~]{8,}")
"""What a header can carry: it is no header's business to have spaces at an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A provider that requests are passed on to."""

    name: str
    """Its name, which a path may begin with: ``/groq/v1/chat/completions``."""
    url: str
    """Its address without the path of an API: ``https://api.openai.com``."""
    key: str | None = field(default=None, repr=False)
    """The key that requests are sent with; None for the caller's own, or for none where callers have keys of ours."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _OURS:
            raise ValueError(
                f"upstream {self.name[:40]!r} is no name for one: use a word of small letters, such as openai"
            )
        parts = urlsplit(self.url[:_LONGEST_URL])
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError(
                f"upstream {self.name}: the address must be http:// or https:// and a host, and carry neither a query "
                f"nor a password, such as {self.name}=https://api.openai.com"
            )

    @property
    def host(self) -> str:
        """The host, without a port."""
        return urlsplit(self.url).hostname or ""

    @property
    def origin(self) -> str:
        """The address without its path."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def base_path(self) -> str:
        """The path that all requests to it begin with; empty for none."""
        return urlsplit(self.url).path.rstrip("/")

    @property
    def provider(self) -> str | None:
        """The provider as the price table names it; None where neither address nor name says."""
        named = provider_id(self.name)
        return provider_of_host(self.host) or (named if named in _SERVES else None)

    @property
    def credential(self) -> tuple[str, str] | None:
        """The header that carries the key; None without one."""
        key, provider = self.key, self.provider
        if key is None:
            return None
        if provider == "anthropic":
            return "x-api-key", key
        if provider == "google" and not key.startswith("ya29."):  # which is an OAuth token
            return "x-goog-api-key", key
        return ("api-key", key) if provider == "azure" else ("authorization", f"Bearer {key}")


def upstream_of(text: str) -> Upstream:
    """The upstream in *text*, ``openai=https://api.openai.com``. Its key is in the environment, as ``OPENAI_API_KEY``.

    Raises:
        ValueError: If it names none.
    """
    name, equals, url = text.partition("=")
    if not equals:
        raise ValueError(f"upstream {text[:40]!r} has no address: write it as openai=https://api.openai.com")
    variables = [f"{name.upper().replace('-', '_')}_API_KEY", *_MORE_VARIABLES.get(name, ())]
    key = next((found for variable in variables if (found := os.environ.get(variable))), None)
    return Upstream(name=name, url=url, key=key)


_MORE_VARIABLES = {"google": ("GEMINI_API_KEY",), "gemini": ("GOOGLE_API_KEY",), "aws": ("AWS_BEARER_TOKEN_BEDROCK",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What a gateway is started with."""

    run_budget: Budget
    """What each run may spend. Its mode is the gateway's."""
    upstreams: Sequence[Upstream]
    """Where requests go to. A path that begins with no upstream's name goes to the one that speaks its dialect."""
    ledger: str = "memory://"
    """Where the counters live, as of `open_ledger`."""
    leases: bool = False
    """Whether each process takes parts of the ledger in advance, as of `LeasedLedger`: far fewer round trips, and what
    other processes have leased and not spent is in nobody's reach meanwhile."""
    ceilings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What each user, key or team may spend, as of `BudgetAuthority`."""
    plans: Mapping[str, Mapping[str, Any]] | None = None
    """What principals with a plan may spend, as of `BudgetAuthority`. The admin API assigns them."""
    keys: str | None = None
    """The file of keys. Without one any token is taken, and its hash is who it is; on the loopback interface alone."""
    host: str = "127.0.0.1"
    port: int = 4000
    admin: str | None = None
    """Where operators look and act, as ``127.0.0.1:4001``; None for nowhere."""
    admin_token: str | None = field(default=None, repr=False)
    """What they prove themselves with. Without one whoever is on this machine may, and the address must be of it."""
    workers: int = 1
    """Processes. More than one need a ledger that they share."""
    allowed_hosts: Sequence[str] = ()
    """Further names that it is asked by, in ``Host``. On the loopback interface no other name is served."""
    allowed_origins: Sequence[str] = ()
    """Pages whose scripts may ask, as a browser names them in ``Origin``. None by default."""
    passthrough: Sequence[str] = ()
    """Requests that are passed on without being held, such as ``POST /v1/moderations``."""
    pricing: Mapping[str, PriceLike] | None = None
    """Prices that win over the bundled ones, dollars per token."""
    per_million: Mapping[str, PriceLike] | None = None
    """The same in dollars per million tokens."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """The models behind names of one's own: ``{"prod-chat": "gpt-4o"}``."""
    alternatives: Sequence[str] = ()
    """Models that a refusal names where one of them is cheaper and could take the call, beside those that the budget
    downgrades to and those that the key is allowed by name."""
    max_live_runs: Mapping[str, int] | None = None
    """How many runs a principal may have open at once, by kind."""
    run_ttl_s: float = 3_600
    """Seconds without a call after which a run is put away. It goes on where it stopped with its next call."""
    max_runs: int = 2_000
    """Runs that are kept at hand in each process; the others are opened anew when they are called."""
    on_disconnect: OnDisconnect = "finish"
    """What becomes of a call whose client is gone before the answer: ``finish`` waits for it, and books exactly what
    it cost; ``abort`` drops it, and books the bound."""
    on_cancel: OnCancel = "bound"
    """What to book for a stream whose client is gone, as of `Session`."""
    on_ledger_error: OnLedgerError | None = None
    outbox: str | None = None
    """A file to keep what was spent while the ledger could not be reached; in memory by default."""
    exceeded_status: int = 402
    """The status where a limit is reached."""
    decisions_kept_days: float = 30
    """Days for which the record of a decision can be looked up, in any process, beside the ledger."""
    max_body: int = 20_000_000
    """Bytes of a request."""
    max_concurrency: int = 1_000
    """Requests under way in each process."""
    grace_s: float = 30
    """Seconds that calls under way have to end in when the gateway is stopped. What has not ended is booked at its
    bound."""
    connect_timeout_s: float = 5
    read_timeout_s: float = 600
    """Seconds that a provider may be silent for."""

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ValueError: If a value makes no sense, or what is asked for cannot be held.
        """
        if not self.upstreams:
            raise ValueError("no upstream is named: give one, such as openai=https://api.openai.com")
        names = [each.name for each in self.upstreams]
        if len(set(names)) != len(names):
            raise ValueError(f"upstreams={names!r}: two have the same name")
        if self.workers < 1:
            raise ValueError(f"workers={self.workers!r} must be 1 or more")
        if self.workers > 1 and self.ledger.startswith("memory:"):
            raise ValueError(
                f"workers={self.workers} with a ledger in memory would each have a budget of their own: use "
                "sqlite:///budget.db or redis://..., or one worker"
            )
        if self.leases and self.ledger.startswith("memory:"):
            raise ValueError("leases are parts of a ledger that is shared: use sqlite:///budget.db or redis://...")
        if self.keys is None and not is_loopback(self.host):
            raise ValueError(
                f"host={self.host!r} can be reached from elsewhere, and without keys anybody could spend: give a file "
                "of keys, or use 127.0.0.1"
            )
        if self.admin is not None:
            host, _ = address_of(self.admin)
            if self.admin_token is None and not is_loopback(host):
                raise ValueError(
                    f"admin={self.admin!r} can be reached from elsewhere, and without a token anybody could revoke and "
                    "raise ceilings: set BUDGET_GUARD_ADMIN_TOKEN, give a file of it, or use 127.0.0.1"
                )
            if self.admin_token is not None and not _TOKEN.fullmatch(self.admin_token):
                raise ValueError(
                    "admin_token must have 8 characters or more, of those that a header can carry, and no space: "
                    "make one with `openssl rand -hex 32`"
                )
        if not 400 <= self.exceeded_status <= 599:
            raise ValueError(f"exceeded_status={self.exceeded_status!r} is no status of a refusal: use 402, or 429")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"allowed_origins: {origin!r:.100} is nothing that a browser says: write scheme, host and, where "
                    "it is not the usual one, port, in small letters and without a path, such as https://app.example"
                )
        if self.on_disconnect not in get_args(OnDisconnect):
            raise ValueError(f'on_disconnect={self.on_disconnect!r} is not known: use "finish" or "abort"')
        if not self.host == "localhost" and not _is_address(self.host):
            raise ValueError(
                f"host={self.host!r:.100} is no address to listen at: use one such as 127.0.0.1 or 0.0.0.0"
            )
        if not 0 <= self.port <= _LAST_PORT:
            raise ValueError(f"port={self.port!r} is no port: use 0 to {_LAST_PORT}, 0 for a free one")
        if not 0 <= self.grace_s <= _LONGEST_GRACE_S:  # also where it is no number
            raise ValueError(
                f"grace_s={self.grace_s!r} must be seconds from 0 to {_LONGEST_GRACE_S}, such as 30: so long have "
                "calls under way to end in"
            )
        if not 0 < self.decisions_kept_days <= _MOST_DAYS:
            raise ValueError(
                f"decisions_kept_days={self.decisions_kept_days!r} must be days above 0, at most {_MOST_DAYS}: such as "
                "30"
            )
        for name in (
            "max_body",
            "max_concurrency",
            "max_runs",
            "run_ttl_s",
            "connect_timeout_s",
            "read_timeout_s",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)!r} must be above zero")

    @property
    def ceiled_kinds(self) -> set[str]:
        """The kinds of principals that have a ceiling, or may have one by a plan."""
        return {*self.ceilings, *(kind for plan in (self.plans or {}).values() for kind in plan)}


def address_of(text: str) -> tuple[str, int]:
    """The host and the port in *text*, ``127.0.0.1:4001`` or ``[::1]:4001``.

    Raises:
        ValueError: If it is no address.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        if host != "localhost":
            ipaddress.ip_address(bare)
        if not colon or not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
            raise ValueError
    except ValueError:
        raise ValueError(f"admin={text[:100]!r} must be an address and a port, such as 127.0.0.1:4001") from None
    return bare, int(port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether *host* can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
