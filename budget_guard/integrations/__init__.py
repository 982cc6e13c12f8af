"""The import paths of the adapters; each needs the extra of its name."""
