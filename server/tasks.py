"""Celery, where mail is sent by workers: the web processes ring, a worker that hears it sends what is due.

The task `drain` has no content, for the outbox is the only truth: one that is lost or comes twice is harmless. What a
lost one left is found by beat's, by the workers' clocks, and where there is PostgreSQL by its notifications. Nothing
else imports Celery.
"""

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable
from time import monotonic
from typing import Any

from amqp.exceptions import PreconditionFailed
from celery import Celery, beat, signals
from celery.exceptions import CPendingDeprecationWarning
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from server import log

_log = log.get(__name__)

QUEUE = "doorbell"
DRAIN = "doorbell.drain"
# How long a task keeps at it; brokers redeliver, or cancel, what is held for long.
BACK_SECONDS = 50
# A ring that nobody heard for so long says nothing any more.
EXPIRES_SECONDS = 60
# Between two rings of one process: what comes in between is found by the second.
PAUSE_SECONDS = 0.1
SWEEP_SECONDS = 5.0
CONNECT_SECONDS = 2
ANSWER_SECONDS = 5
# It has no other way to know that a worker died; and one that vanished without a word would keep a thread for ever.
_REDIS = {
    "visibility_timeout": 2 * EXPIRES_SECONDS,
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": ANSWER_SECONDS,
}
# Rings that wait are all alike: one more says nothing new. Where no worker runs they would fill a Redis in a week.
MOST_WAITING = 100
# Drains that a worker has at a time. They only wait, so that another can be heard meanwhile.
THREADS = 2


def create(broker_url: str) -> Celery:
    """The Celery application of this installation, known by nothing but its broker. It connects to nothing yet."""
    for name in ("celery", "kombu", "amqp"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns, at each start, of tasks that are to wait; ours do not.
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)
    made = Celery("doorbell", broker=broker_url, set_as_current=False)
    made.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_transport_options=_REDIS if broker_url.startswith("redis") else {},
        task_default_queue=QUEUE,
        # What RabbitMQ 4 keeps safe on several machines. Others do not know types.
        task_default_queue_type="quorum",
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Queues of each worker's own; health is told by /readyz.
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        beat_schedule={"drain": {"task": DRAIN, "schedule": SWEEP_SECONDS, "options": {"expires": SWEEP_SECONDS}}},
    )
    return made


class Bell:
    """Rings for the workers. It never raises, and says once that it cannot, and once that it can again."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self.fault: str | None = None

    def ring(self) -> None:
        """Says that something is due. It takes its time: not for the event loop."""
        try:
            with self._celery.producer_pool.acquire(block=True, timeout=CONNECT_SECONDS) as producer:
                # Once more where it fails: a connection that lay idle may be closed.
                producer.connection.ensure(producer, self._ring, max_retries=1, interval_start=0)(producer)
        except Exception as error:  # whatever it is, signups must go on
            self._failed(_name(error))
        else:
            self._worked()

    def _ring(self, producer: Producer) -> None:
        if _waiting(self._celery, producer.channel) < MOST_WAITING:
            self._celery.send_task(DRAIN, producer=producer, expires=EXPIRES_SECONDS, retry=False)

    def _failed(self, reason: str) -> None:
        if self.fault is None:
            _log.error("broker.unavailable", reason=reason)
        self.fault = reason

    def _worked(self) -> None:
        if self.fault is not None:
            _log.info("broker.recovered")
        self.fault = None


def _waiting(celery: Celery, channel: Any) -> int:
    """How many rings wait. Makes the queue where it is missing; raises PreconditionFailed where it is another's."""
    queue = celery.amqp.queues[QUEUE]
    declared = channel.queue_declare(
        queue=queue.name, durable=True, exclusive=False, auto_delete=False, arguments=queue.queue_arguments
    )
    return int(declared.message_count)


def _name(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__


class Broker:
    """The web process's end: `wake` rings for the workers, between `open` and `close`. It never raises."""

    def __init__(self, broker_url: str) -> None:
        self._celery = create(broker_url)
        self._bell = Bell(self._celery)
        self._woken = asyncio.Event()
        self._ringing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begins to ring. A broker that is away stops nothing."""
        self._ringing = asyncio.create_task(self._ring())

    def wake(self) -> None:
        """Says that something is due. Of many in a short time one is sent."""
        self._woken.set()

    async def close(self) -> None:
        """Ends. What was not rung for is found by the workers."""
        if self._ringing is not None:
            self._ringing.cancel()
            await asyncio.wait({self._ringing})
        await asyncio.to_thread(self._celery.close)

    async def check(self) -> str | None:
        """Why workers cannot be rung for; None where they can."""
        try:
            await asyncio.to_thread(self._connect)
        except (OperationalError, OSError) as error:
            return _name(error)
        return self._bell.fault

    def _connect(self) -> None:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)

    async def _ring(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            await asyncio.to_thread(self._bell.ring)
            await asyncio.sleep(PAUSE_SECONDS)


class _Sweeps(beat.Scheduler):  # type: ignore[misc]
    """Beat's, that rings as all do. Its own would print a stack each time it cannot."""

    def apply_async(self, entry: beat.ScheduleEntry, producer: Any = None, advance: bool = True, **_: Any) -> None:
        if advance:
            self.reserve(entry)
        self._bell.ring()

    def setup_schedule(self) -> None:
        super().setup_schedule()
        self._bell = Bell(self.app)


def work(broker_url: str, send: Callable[[float], bool], *, sweeps: bool) -> int:
    """Runs a worker in this thread, the process's first, until SIGTERM; answers its exit status.

    `send` sends what is due for so many seconds at most, and tells whether that was all; it is called from threads.
    With `sweeps` beat runs in it too.
    """
    celery = create(broker_url)
    if (wrong := _wrong(celery)) is not None:
        _log.error("start.failed", step="broker", reason=wrong)
        return 1
    stopping = threading.Event()

    bell = Bell(celery)

    def drain() -> None:
        drained(send, bell.ring, stopping)

    celery.task(name=DRAIN)(drain)

    def stop(**_: Any) -> None:
        stopping.set()

    signals.setup_logging.connect(_leave_logging)
    signals.worker_shutting_down.connect(stop)
    signals.worker_ready.connect(_ignore_plans)
    sweeping = beat.EmbeddedService(celery, thread=True, scheduler_cls=_Sweeps) if sweeps else None
    if sweeping is not None:
        sweeping.start()
    worker = celery.Worker(
        pool="threads",
        concurrency=THREADS,
        quiet=True,
        # What these are for is known otherwise: leases tell who lives.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    if sweeping is not None:
        sweeping.stop()
    return worker.exitcode or 0


def sweep(broker_url: str) -> None:
    """Runs beat alone in this thread, until SIGTERM: it rings every few seconds."""
    signals.setup_logging.connect(_leave_logging)
    create(broker_url).Beat(scheduler_cls=_Sweeps, quiet=True, redirect_stdouts=False).run()


def drained(send: Callable[[float], bool], ring: Callable[[], None], stopping: threading.Event) -> None:
    """Sends until nothing is left, but not for longer than `BACK_SECONDS`, nor when the worker is `stopping`: then it
    rings for whoever comes next."""
    until = monotonic() + BACK_SECONDS
    while not stopping.is_set() and monotonic() < until:
        if send(1.0):
            _log.debug("drain.done")
            return
    ring()


def _wrong(celery: Celery) -> str | None:
    """Why this broker can never be used; None also where it is only away."""
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
            _waiting(celery, connection.default_channel)
    except PreconditionFailed:
        return f"the broker has a queue {QUEUE} of another kind: delete it, nothing in it is needed"
    except (OperationalError, OSError):
        pass  # Celery waits for it
    return None


def _ignore_plans(**_: Any) -> None:
    """Of what Celery 6 will do when the connection is lost: what we want then, `create` says."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


def _leave_logging(**_: Any) -> None:
    """Connected, it keeps Celery from setting up logs of its own."""
