"""The proxy of the network that stands between this machine and a provider, as the environment names it."""

from __future__ import annotations

from functools import lru_cache
from urllib.request import getproxies, proxy_bypass

from budget_guard_gateway.settings import is_loopback


@lru_cache(maxsize=256)
def network_proxy(scheme: str, host: str) -> str | None:
    """The proxy through which *host* is reached: ``HTTPS_PROXY`` and the like, but for hosts in ``NO_PROXY``.

    Never one for this machine. One that speaks no HTTP, such as SOCKS, is left out.

    Returns:
        Its address; None where there is none.
    """
    if is_loopback(host) or proxy_bypass(host):
        return None
    named = getproxies()
    proxy = named.get(scheme) or named.get("all")
    return proxy if proxy and proxy.startswith(("http://", "https://")) else None
