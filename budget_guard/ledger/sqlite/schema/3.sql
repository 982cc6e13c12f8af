-- Version 3: the usage history. Hours are hours since 1970 began.

ALTER TABLE scope ADD COLUMN counted_from INTEGER; -- since when what is committed is counted; NULL for always
ALTER TABLE hold ADD COLUMN lines TEXT;            -- JSON: what an estimate is in the history, to take it out again

CREATE TABLE usage (
    scope INTEGER NOT NULL,
    hour INTEGER NOT NULL,          -- of old rows that at which their day begins; 0 for all that was before
    feature TEXT NOT NULL,
    agent TEXT NOT NULL,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    tool TEXT NOT NULL,
    cost INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    uncertain INTEGER NOT NULL,     -- the part of the cost that is an estimate
    cached INTEGER NOT NULL,
    cache_written INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    PRIMARY KEY (scope, hour, feature, agent, task, model, tool)
) STRICT, WITHOUT ROWID;

-- What was spent before there was a history is one row without labels.

UPDATE scope SET counted_from = began_at WHERE period > 0;

INSERT INTO usage
SELECT key, coalesce(counted_from, 0) / 3600000000, '', '', '', '', '', committed_cost, committed_input_tokens,
    committed_output_tokens, committed_total_tokens, committed_requests, committed_tool_calls, 0, 0, 0, 0
FROM scope
WHERE kind NOT IN ('agent_in_run', 'live', 'ceiling', 'plan') AND instr(kind, '@') = 0;
