"""When to try again: one mail after a fault of its own, and the relay as a whole after a fault of the operator's, or
when it has too much of us."""

import random
from dataclasses import dataclass
from time import monotonic

FIRST_SECONDS = 60.0
LONGEST_SECONDS = 6 * 3600.0
# No mail is ever due later than this: one that is was written by a clock that has been set back since.
FARTHEST_SECONDS = 1.1 * LONGEST_SECONDS
GIVE_UP_SECONDS = 5 * 86400.0
GIVE_UP_ATTEMPTS = 12
# A relay that refuses one sender: the mail waits, the others go on.
HELD_SECONDS = 300.0
# Greylisting takes what comes back after this long: most servers ask for one to five minutes.
GREYLISTED_SECONDS = 330.0
GREYLISTED_ATTEMPTS = 5


def delay(attempts: int, *, greylisted: bool = False) -> float:
    """Seconds to wait after the given number of earlier attempts: 1 minute doubling to 6 hours, with jitter.

    A greylisted mail comes back after some minutes; one that is greylisted for ever waits like the others.
    """
    if greylisted and attempts < GREYLISTED_ATTEMPTS:
        return random.uniform(1.0, 1.2) * GREYLISTED_SECONDS
    longest = min(FIRST_SECONDS * 2.0 ** min(attempts, 30), LONGEST_SECONDS)
    # Jitter: mails that failed together must not come back together.
    return random.uniform(0.75, 1.0) * longest


def exhausted(attempts: int, age_seconds: float) -> bool:
    """Whether a mail has had its chances. Age alone does not tell: while the relay was down, it had none."""
    return attempts >= GIVE_UP_ATTEMPTS and age_seconds > GIVE_UP_SECONDS


@dataclass(slots=True)
class Breaker:
    """Open while the relay is down: nothing is claimed, one probe at a time asks whether it is back."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    failures: int = 0
    retry_at: float = 0.0

    @property
    def open(self) -> bool:
        return self.failures > 0

    @property
    def seconds_to_probe(self) -> float:
        return max(self.retry_at - monotonic(), 0.0)

    def failed(self) -> None:
        """The relay did not take us: wait, longer each time."""
        longest = min(self.first_seconds * 2.0 ** min(self.failures, 20), self.longest_seconds)
        self.failures += 1
        self.retry_at = monotonic() + random.uniform(0.75, 1.0) * longest

    def recovered(self) -> None:
        self.failures = 0


@dataclass(slots=True)
class Window:
    """How many mails may be on their way at once: half as many each time that the relay says it is too much, one more
    after as many as that went well (additive increase, multiplicative decrease, as in RFC 5681)."""

    most: int
    allowed: float = 0.0
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    resume_at: float = 0.0
    _pause: float = 0.0

    def __post_init__(self) -> None:
        self.allowed = float(self.most)

    @property
    def pause(self) -> float:
        """Seconds in which nothing more may be begun."""
        return max(self.resume_at - monotonic(), 0.0)

    def slow_down(self) -> None:
        """The relay has too much of us. Those on their way fail together: that is one sign, not many."""
        if self.pause:
            return
        self.allowed = max(self.allowed / 2, 1.0)
        self._pause = min(self._pause * 2 or self.first_seconds, self.longest_seconds)
        self.resume_at = monotonic() + random.uniform(0.75, 1.0) * self._pause

    def went_well(self) -> None:
        self.allowed = min(self.allowed + 1 / self.allowed, float(self.most))
        self._pause = 0.0
