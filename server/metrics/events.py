"""What is counted when it happens."""

import functools

from prometheus_client import Counter, Histogram

from server.metrics.registry import counter, gauge, histogram

OUTCOMES = ("sent", "failed", "deferred", "held", "uncertain")
REFUSALS = ("limit", "proof")

# From a mail that leaves at once to one that a relay took after days: 10 ms to 5 days.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LATENCY_SECONDS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 2 * _DAY, 5 * _DAY),
)
_SHORT_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

requests = counter("doorbell_http_requests", "Requests that were answered.", ["route", "status"])
_request_seconds = histogram(
    "doorbell_http_request_duration_seconds",
    "From a request's head to the beginning of its answer, but for what is answered from the table.",
    ["route"],
    buckets=_SHORT_SECONDS,
)
_signups = counter("doorbell_signups", "Signups that were accepted.", ["site"])
_refused = counter("doorbell_signups_refused", "Posts that a limit or a proof of work kept out.", ["site", "reason"])
_spam = counter("doorbell_signups_spam", "Posts that were taken for spam, and kept as such.", ["site"])
_confirmed = counter("doorbell_signups_confirmed", "Addresses that were confirmed.", ["site"])
_unsubscribed = counter("doorbell_unsubscribes", "Times that an address wanted no more mail.", ["site"])
_sends = counter("doorbell_mail_sends", "Attempts to send a mail, by how they ended.", ["outcome"])
_latency = histogram(
    "doorbell_mail_latency_seconds",
    "From the answer to the signup to the relay's acceptance of the mail.",
    buckets=_LATENCY_SECONDS,
)
_transactions = histogram(
    "doorbell_database_transaction_duration_seconds",
    "From when a transaction is asked for until it is committed.",
    ["kind"],
    buckets=_SHORT_SECONDS,
)
_commit_writes = histogram(
    "doorbell_database_commit_writes", "Writes that shared one transaction.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
_job_runs = counter("doorbell_job_runs", "Runs of timed jobs, by how they ended.", ["job", "outcome"])
_job_success = gauge(
    "doorbell_job_last_success_timestamp_seconds",
    "When a timed job last ended well since the start.",
    ["job"],
    multiprocess_mode="max",
)
_sites = gauge("doorbell_sites", "Sites that are served.", multiprocess_mode="livemax")
_loads = counter("doorbell_sites_loads", "Loads of the sites, by what is served since.", ["outcome"])

# Made beforehand: a rate needs a zero to begin from.
_sends_by_outcome = {outcome: _sends.labels(outcome) for outcome in OUTCOMES}
_loads_by_outcome = {outcome: _loads.labels(outcome) for outcome in ("loaded", "kept")}


@functools.cache  # as many as there are routes and statuses
def _answers(route: str, status: int) -> Counter:
    return requests.labels(route, str(status))


@functools.cache
def _seconds(route: str) -> Histogram:
    return _request_seconds.labels(route)


def answered(route: str, status: int, seconds: float) -> None:
    """A request was answered by the application: `route` is one of few words."""
    _answers(route, status).inc()
    _seconds(route).observe(seconds)


def known(site: str) -> None:
    """There is this site: its counters begin at zero."""
    for made in (_signups, _spam, _confirmed, _unsubscribed):
        made.labels(site)
    for reason in REFUSALS:
        _refused.labels(site, reason)


def signed_up(site: str) -> None:
    """A signup of `site` was accepted."""
    _signups.labels(site).inc()


def refused(site: str, reason: str) -> None:
    """A post to `site` was not taken (one of `REFUSALS`)."""
    _refused.labels(site, reason).inc()


def spam(site: str) -> None:
    """A post to `site` was taken for spam."""
    _spam.labels(site).inc()


def confirmed(site: str) -> None:
    """An address was confirmed at `site`."""
    _confirmed.labels(site).inc()


def unsubscribed(site: str) -> None:
    """An address wants no more mail from `site`."""
    _unsubscribed.labels(site).inc()


def sent(outcome: str) -> None:
    """An attempt to send a mail ended like this (one of `OUTCOMES`)."""
    _sends_by_outcome[outcome].inc()


def delivered(seconds: float) -> None:
    """The relay took a mail so long after its signup was answered."""
    _latency.observe(max(seconds, 0.0))  # the clock may have been set back


def transactions(kind: str) -> Histogram:
    """What observes the seconds of transactions of this kind, in any thread."""
    return _transactions.labels(kind)


def committed(writes: int) -> None:
    """So many writes were committed together."""
    _commit_writes.observe(writes)


def scheduled(job: str) -> None:
    """There is this timed job: its counters begin at zero."""
    for outcome in ("success", "failure"):
        _job_runs.labels(job, outcome)


def job_ended(job: str, *, well: bool) -> None:
    """A timed job was done, or failed."""
    _job_runs.labels(job, "success" if well else "failure").inc()
    if well:
        _job_success.labels(job).set_to_current_time()


def loaded(sites: int) -> None:
    """So many sites are served from now on."""
    _sites.set(sites)
    _loads_by_outcome["loaded"].inc()


def kept() -> None:
    """The sites could not be loaded: those of before are served."""
    _loads_by_outcome["kept"].inc()
