"""``from budget_guard.integrations.gateway import Gateway``: the gateway, an ASGI application, and `serve`."""

try:
    import aiohttp as _aiohttp  # itself, so that an error inside the adapter is not taken for its absence
    import uvicorn as _uvicorn
except ImportError as error:
    raise ImportError('The gateway needs: pip install "budget-guard-py[gateway]"') from error

from budget_guard_gateway.admin.app import Admin
from budget_guard_gateway.app import Gateway
from budget_guard_gateway.command import main as command
from budget_guard_gateway.keys import Keys, Principal, add_key, read_keys, revoke_key
from budget_guard_gateway.program import Coverage, ProgramGateway, ProgramProxy
from budget_guard_gateway.run_options import add_run_options, run_settings
from budget_guard_gateway.runs import is_run_id
from budget_guard_gateway.serving import serve
from budget_guard_gateway.settings import GatewaySettings, Upstream, upstream_of

__all__ = [
    "Admin",
    "Coverage",
    "Gateway",
    "GatewaySettings",
    "Keys",
    "Principal",
    "ProgramGateway",
    "ProgramProxy",
    "Upstream",
    "add_key",
    "add_run_options",
    "command",
    "is_run_id",
    "read_keys",
    "revoke_key",
    "run_settings",
    "serve",
    "upstream_of",
]

del _aiohttp, _uvicorn
