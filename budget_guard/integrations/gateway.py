"""``from budget_guard.integrations.gateway import Gateway``: the gateway, an ASGI application, and `serve`."""

try:
    import aiohttp as _aiohttp  # itself, so that an error inside the adapter is not taken for its absence
    import uvicorn as _uvicorn
except ImportError as error:
    raise ImportError('The gateway needs: pip install "budget-guard-py[gateway]"') from error

from budget_guard_gateway.admin.app import Admin
from budget_guard_gateway.app import Gateway
from budget_guard_gateway.command import main as command
from budget_guard_gateway.keys import Keys, add_key, read_keys, revoke_key
from budget_guard_gateway.serving import serve
from budget_guard_gateway.settings import GatewaySettings, Upstream, upstream_of

__all__ = [
    "Admin",
    "Gateway",
    "GatewaySettings",
    "Keys",
    "Upstream",
    "add_key",
    "command",
    "read_keys",
    "revoke_key",
    "serve",
    "upstream_of",
]

del _aiohttp, _uvicorn
