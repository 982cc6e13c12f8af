-- Version 4: texts that processes agree on beside the counters.

CREATE TABLE kept (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    expires_at INTEGER NOT NULL -- microseconds since 1970
) STRICT, WITHOUT ROWID;

CREATE INDEX kept_expiring ON kept (expires_at);
