"""The life of one call: planned, held, sent, settled."""
