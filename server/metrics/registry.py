"""Where metrics are kept: in this process, or, where several serve together, in files of a folder that they share."""

import functools
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# The name is the library's, which looks at it when it is imported.
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_own = CollectorRegistry()
counter = functools.partial(Counter, registry=_own)
gauge = functools.partial(Gauge, registry=_own)
histogram = functools.partial(Histogram, registry=_own)


def is_shared() -> bool:
    """Whether this process counts together with others."""
    return _FOLDER in os.environ


def collect() -> Iterable[Metric]:
    """Every metric; where processes count together, of all of them."""
    if not is_shared():
        return _own.collect()
    with suppress(struct.error):  # a file that another process makes just now is empty for a moment
        return _together()
    return _together()


def _together() -> list[Metric]:
    return list(MultiProcessCollector(None).collect())  # type: ignore[no-untyped-call]


@contextmanager
def sharing() -> Iterator[None]:
    """Processes that are started in this block count together; not this one itself."""
    with tempfile.TemporaryDirectory(prefix="doorbell-metrics-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def died(pid: int) -> None:
    """A process that counted has ended: what it counted stays, what it was goes."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
