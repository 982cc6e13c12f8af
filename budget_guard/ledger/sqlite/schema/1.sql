-- Version 1. Times are microseconds since 1970, amounts are whole numbers, STRICT keeps them from ever becoming REAL.

CREATE TABLE ledger (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    version INTEGER NOT NULL,       -- changes whenever room is given
    seen_at INTEGER NOT NULL,       -- the latest time that any process has seen: it never goes back
    settled INTEGER NOT NULL,       -- holds settled so far, which numbers them
    forgotten INTEGER NOT NULL,     -- how many of these are forgotten, oldest first
    forgotten_ms INTEGER NOT NULL   -- when the youngest forgotten id was made; milliseconds, as in the id
) STRICT;

INSERT INTO ledger VALUES (1, 0, 0, 0, 0, 0);

CREATE TABLE scope (
    key INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    owner TEXT,
    "window" TEXT NOT NULL,
    began_at INTEGER,
    period INTEGER NOT NULL,        -- how many windows have ended
    revoked_for TEXT,
    revoked_at INTEGER,
    open_holds INTEGER NOT NULL CHECK (open_holds >= 0),
    limit_cost INTEGER,
    limit_input_tokens INTEGER,
    limit_output_tokens INTEGER,
    limit_total_tokens INTEGER,
    limit_requests INTEGER,
    limit_tool_calls INTEGER,
    committed_cost INTEGER NOT NULL, -- below nothing only where an adjustment counted on an estimate that was too high
    committed_input_tokens INTEGER NOT NULL,
    committed_output_tokens INTEGER NOT NULL,
    committed_total_tokens INTEGER NOT NULL,
    committed_requests INTEGER NOT NULL,
    committed_tool_calls INTEGER NOT NULL,
    reserved_cost INTEGER NOT NULL CHECK (reserved_cost >= 0),
    reserved_input_tokens INTEGER NOT NULL CHECK (reserved_input_tokens >= 0),
    reserved_output_tokens INTEGER NOT NULL CHECK (reserved_output_tokens >= 0),
    reserved_total_tokens INTEGER NOT NULL CHECK (reserved_total_tokens >= 0),
    reserved_requests INTEGER NOT NULL CHECK (reserved_requests >= 0),
    reserved_tool_calls INTEGER NOT NULL CHECK (reserved_tool_calls >= 0),
    archived_cost INTEGER NOT NULL, -- the part of what is committed whose holds are forgotten
    archived_input_tokens INTEGER NOT NULL,
    archived_output_tokens INTEGER NOT NULL,
    archived_total_tokens INTEGER NOT NULL,
    archived_requests INTEGER NOT NULL,
    archived_tool_calls INTEGER NOT NULL,
    UNIQUE (kind, id)
) STRICT;

CREATE TABLE hold (
    id TEXT PRIMARY KEY,
    verb TEXT NOT NULL,             -- what it was first heard of by
    scopes TEXT NOT NULL,           -- JSON: the keys of its scopes, in order
    periods TEXT,                   -- JSON: the period of each scope that it belongs to; NULL for the first one of each
    reason TEXT,                    -- of an adjustment
    suspend INTEGER NOT NULL,
    held_cost INTEGER NOT NULL,
    held_input_tokens INTEGER NOT NULL,
    held_output_tokens INTEGER NOT NULL,
    held_total_tokens INTEGER NOT NULL,
    held_requests INTEGER NOT NULL,
    held_tool_calls INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'forwarded', 'committed', 'released', 'suspended', 'expired')),
    uncertain INTEGER NOT NULL,
    expires_at INTEGER,
    suspended_at INTEGER,
    settled INTEGER,                -- its number among the settled holds; NULL while it is open
    charged_cost INTEGER,           -- NULL where nothing was charged, as the other five
    charged_input_tokens INTEGER,
    charged_output_tokens INTEGER,
    charged_total_tokens INTEGER,
    charged_requests INTEGER,
    charged_tool_calls INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX hold_expiring ON hold (expires_at) WHERE state IN ('reserved', 'forwarded');
CREATE INDEX hold_suspended ON hold (suspended_at) WHERE state = 'suspended';
CREATE UNIQUE INDEX hold_settled ON hold (settled) WHERE settled IS NOT NULL;
