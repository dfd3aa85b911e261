"""Doorbell: static sites, a signup form each, and mail that is never lost."""
