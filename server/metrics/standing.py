"""What a process says of itself: each second where several serve together, and whenever it is asked. Whoever is asked
then knows of all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.process_collector import ProcessCollector

from server.metrics.events import requests
from server.metrics.registry import collect, counter, gauge

# Of what is answered from the table; `answered` names the others.
FILES = "files"


@dataclass(frozen=True, slots=True)
class Relay:
    """How it stands with the mail relay. `pool`: see `Pool.stats`; `fault`: at which step it refuses mail, and with
    which code (empty: none)."""

    pool: Mapping[str, int] = field(default_factory=dict)
    breaker_open: bool = False
    fault: tuple[str, str] | None = None


class _Settable(Protocol):
    def set(self, value: float) -> None: ...


class _Followed:
    """A counter that follows a number which others count up, and which begins anew with them."""

    def __init__(self, name: str, text: str) -> None:
        self._counter = counter(name, text)
        self._seen = 0.0

    def set(self, value: float) -> None:
        self._counter.inc(value - self._seen if value >= self._seen else value)
        self._seen = value


_connections = gauge(
    "doorbell_smtp_pool_connections", "SMTP connections by what they do.", ["state"], multiprocess_mode="livesum"
)
_POOL: dict[str, _Settable] = {
    "leased": _connections.labels("leased"),
    "idle": _connections.labels("idle"),
    "size": gauge("doorbell_smtp_pool_connections_max", "SMTP connections at most.", multiprocess_mode="livesum"),
    "waiting": gauge("doorbell_smtp_pool_waiting", "Mails that wait for a connection.", multiprocess_mode="livesum"),
    "connects": _Followed("doorbell_smtp_pool_connects", "Attempts to connect to the relay."),
    "connect_failures": _Followed("doorbell_smtp_pool_connect_failures", "Attempts to connect that failed."),
}
_SAMPLES = {
    "leased": ("doorbell_smtp_pool_connections", "leased"),
    "idle": ("doorbell_smtp_pool_connections", "idle"),
    "size": ("doorbell_smtp_pool_connections_max", None),
    "waiting": ("doorbell_smtp_pool_waiting", None),
    "connects": ("doorbell_smtp_pool_connects_total", None),
    "connect_failures": ("doorbell_smtp_pool_connect_failures_total", None),
}
_breaker = gauge(
    "doorbell_smtp_breaker_open", "1 while mail is held because the relay is down.", multiprocess_mode="livemax"
)
_fault = gauge(
    "doorbell_smtp_fault",
    "1 while the relay refuses mail at this step with this code.",
    ["stage", "code"],
    multiprocess_mode="livemax",
)
_processes = gauge("doorbell_processes", "Processes that serve.", multiprocess_mode="livesum")
# By the names that Prometheus gives them everywhere; of all processes, or of the one that has most.
_PROCESS: dict[str, _Settable] = {
    "process_resident_memory_bytes": gauge(
        "process_resident_memory_bytes", "Resident memory, of all workers.", multiprocess_mode="livesum"
    ),
    "process_open_fds": gauge(
        "process_open_fds", "Open file descriptors of the worker that has most.", multiprocess_mode="livemax"
    ),
    "process_max_fds": gauge(
        "process_max_fds", "Open file descriptors that a worker may have.", multiprocess_mode="livemin"
    ),
    "process_start_time_seconds": gauge(
        "process_start_time_seconds", "When the oldest worker began, since 1970.", multiprocess_mode="livemin"
    ),
    "process_cpu_seconds": _Followed("process_cpu_seconds", "Processor time, of all workers."),
}
_process = ProcessCollector(registry=None)

_hits: dict[int, list[int]] = {}
_faults: set[tuple[str, str]] = set()


def hits(status: int) -> list[int]:
    """How many answers of this status came from the table since they were last published: one number, in a list.
    Whoever gives a hundred thousand of them a second adds to it, and calls nothing."""
    return _hits.setdefault(status, [0])


def publish(relay: Relay) -> None:
    """Says how it stands in this process."""
    for name, value in relay.pool.items():
        _POOL[name].set(value)
    _breaker.set(relay.breaker_open)
    if relay.fault is not None:
        _faults.add(relay.fault)
    for stage, code in _faults:
        _fault.labels(stage, code).set((stage, code) == relay.fault)
    _processes.set(1)
    for family in _process.collect():
        if family.name in _PROCESS:
            _PROCESS[family.name].set(family.samples[0].value)
    for status, count in _hits.items():
        requests.labels(FILES, str(status)).inc(count[0])
        count[0] = 0


def relays() -> Relay:
    """The same of all processes that serve together, as one; of what is published."""
    families = [family for family in collect() if family.name.startswith("doorbell_smtp_")]
    samples = [sample for family in families for sample in family.samples]
    values = {(sample.name, sample.labels.get("state")): sample.value for sample in samples}
    faults = [sample.labels for sample in samples if sample.name == "doorbell_smtp_fault" and sample.value]
    return Relay(
        {name: int(values.get(sample, 0)) for name, sample in _SAMPLES.items()},
        values.get(("doorbell_smtp_breaker_open", None), 0) > 0,
        (faults[0]["stage"], faults[0]["code"]) if faults else None,
    )
