"""Doorbell: static sites, a signup form each, and mail that is never lost."""

__version__ = "0.1.0"
