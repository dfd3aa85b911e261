"""Timed work beside the requests: when it is due, and what it does. Knows no HTTP."""
