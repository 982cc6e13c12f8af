"""A ledger in Redis: shared by any number of processes and machines."""

from budget_guard.ledger.redis.ledger import AsyncRedisLedger, RedisLedger

__all__ = ["AsyncRedisLedger", "RedisLedger"]
