"""When to try again: one mail after a fault of its own, the whole relay after a fault of the operator's."""

import random
from dataclasses import dataclass
from time import monotonic

FIRST_SECONDS = 60.0
LONGEST_SECONDS = 6 * 3600.0
GIVE_UP_SECONDS = 5 * 86400.0
GIVE_UP_ATTEMPTS = 12
# A relay that refuses one sender: the mail waits, the others go on.
HELD_SECONDS = 300.0


def delay(attempts: int) -> float:
    """Seconds to wait after the given number of earlier attempts: 1 minute doubling to 6 hours, with jitter."""
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
