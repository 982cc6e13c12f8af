-- Version 2: a text that is kept with a scope.

ALTER TABLE scope ADD COLUMN note TEXT NOT NULL DEFAULT '';
