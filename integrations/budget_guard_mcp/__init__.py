"""The guard of MCP tools: the client's `call_tool`, and a middleware of a FastMCP server."""
