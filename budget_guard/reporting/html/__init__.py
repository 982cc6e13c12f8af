"""A report as a page of its own, and as a part of a notebook."""
