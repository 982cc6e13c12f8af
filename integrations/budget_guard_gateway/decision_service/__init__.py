"""The decision service: for callers who ask here whether a call may be made, and send it by themselves."""
