"""The guard of raw clients: `session.guard(client)` holds every request that the client sends."""
