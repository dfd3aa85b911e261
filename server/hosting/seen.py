"""Requests that came before, byte for byte, and what they were answered: a page is asked for in the same words by
everybody who has the same browser."""

from time import perf_counter_ns

from server.hosting.resource import Body

# Bodies from here on are sent as they are; below, one copy is cheaper than a second buffer.
_JOINED = 32 * 1024
# How many requests are remembered to have come once, and the bytes that those have which came again.
_ONCE = 32 * 1024
_BYTES = 8 * 2**20
_OVERHEAD = 300

_TIMES = [b"x-process-time: 0.%06d\r\n\r\n" % micros for micros in range(1000)]


def process_time(began: int) -> bytes:
    """The last field of a head, and its end: the seconds since `began`, which is in nanoseconds."""
    took = (perf_counter_ns() - began) // 1000
    return _TIMES[took] if took < 1000 else b"x-process-time: %.6f\r\n\r\n" % (took / 1e6)


class Known:
    """An answer for as long as its date is right: `first` goes out in one write, `rest` behind it as it is."""

    __slots__ = ("_body", "_head", "count", "date", "first", "rest")

    def __init__(self, head: bytes, body: Body | list[Body], count: list[int]) -> None:
        """`body` is in memory, all of it. To the number in `count` whoever sends it adds one."""
        self.count = count
        small = body.__class__ is bytes and len(body) < _JOINED
        self._head = head
        self._body = body if small else b""
        self.rest = [] if small else body if isinstance(body, list) else [body]
        self.date = self.first = b""

    def renew(self, date: bytes, began: int) -> None:
        """Makes it good for this second. X-Process-Time is the time that whoever asks first in it has waited."""
        self.date = date
        self.first = b"".join((self._head, date, process_time(began), self._body))  # type: ignore[arg-type]


class Seen(dict[bytes, Known]):
    """Answers by whole requests, from the second time on that one came. Some megabytes; emptied when full."""

    def __init__(self) -> None:
        super().__init__()
        self._once: set[int] = set()
        self._size = 0

    def note(self, request: bytes, answer: Known) -> None:
        """It came, and was answered so."""
        mark = hash(request)
        if request in self:
            return
        if mark not in self._once:
            if len(self._once) >= _ONCE:
                self._once.clear()
            self._once.add(mark)
            return
        self._size += len(request) + 2 * len(answer.first) + _OVERHEAD
        if self._size > _BYTES:
            self.clear()
            self._size = 0
        self[request] = answer
