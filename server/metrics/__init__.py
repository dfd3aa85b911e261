"""What Prometheus is told. A leaf: whoever counts calls a function here.

Names have their unit in them, no label is ever an address, and none has values without end. docs/metrics.md lists all.
"""

from server.metrics.events import (
    OUTCOMES,
    answered,
    committed,
    confirmed,
    delivered,
    job_ended,
    kept,
    known,
    loaded,
    refused,
    scheduled,
    sent,
    signed_up,
    spam,
    transactions,
    unsubscribed,
)
from server.metrics.exposition import STATES, Reading, exposition
from server.metrics.registry import died, is_shared, sharing
from server.metrics.standing import FILES, Relay, hits, publish, relays

__all__ = [
    "FILES",
    "OUTCOMES",
    "STATES",
    "Reading",
    "Relay",
    "answered",
    "committed",
    "confirmed",
    "delivered",
    "died",
    "exposition",
    "hits",
    "is_shared",
    "job_ended",
    "kept",
    "known",
    "loaded",
    "publish",
    "refused",
    "relays",
    "scheduled",
    "sent",
    "sharing",
    "signed_up",
    "spam",
    "transactions",
    "unsubscribed",
]
