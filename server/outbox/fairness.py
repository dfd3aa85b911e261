"""Whose turn it is: claimed mails by the domain they go to, so that one dead domain does not hold up the rest.

Each domain with mail waiting has its turn, and a share of what may be on its way at once: half at first, all while it
takes mail, one mail after a fault. After several faults in a row it rests. Knows no database and no SMTP.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from server.outbox.store import Claimed

REST_AFTER = 3
REST_SECONDS = 30.0
LONGEST_REST_SECONDS = 900.0
# Domains without mail that are remembered: anybody can make up as many as he likes.
REMEMBERED = 1000


@dataclass(slots=True)
class _Domain:
    share: int
    proven: bool = False
    waiting: deque[Claimed] = field(default_factory=deque)
    on_their_way: int = 0
    faults: int = 0

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.on_their_way

    @property
    def surplus(self) -> int:
        """How many wait in vain: nobody knows yet whether this domain takes mail, or it does not."""
        return 0 if self.proven else len(self.waiting) - 2 * self.share


class Turns:
    """The waiting mails, and how many of each domain are on their way; `most` is how many in all can be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._domains: dict[str, _Domain] = {}
        self._line: dict[str, _Domain] = {}  # those with mail waiting; who comes next is first
        self._held_up: set[str] = set()  # unproven, and their share is on its way
        self.waiting = 0

    @property
    def ready(self) -> int:
        """How many wait that only need a free connection, and not for others of their domain."""
        return self.waiting - sum(len(self._domains[name].waiting) for name in self._held_up)

    def add(self, rows: Iterable[Claimed]) -> list[Claimed]:
        """These wait for their turn. Answers those that need not: their domains have enough waiting."""
        for row in rows:
            domain = self._of(row.domain)
            domain.waiting.append(row)
            self._line[row.domain] = domain
            self.waiting += 1
        return [self._drop_last(domain) for domain in self._line.values() for _ in range(domain.surplus)]

    def take(self) -> Claimed | None:
        """The next whose domain has a share left; None if there is none. To be told of with `landed`."""
        name = next((name for name, one in self._line.items() if one.on_their_way < one.share), None)
        if name is None:
            return None
        domain = self._line.pop(name)
        row = domain.waiting.popleft()
        if domain.waiting:
            self._line[name] = domain  # at the end of the line
        domain.on_their_way += 1
        self.waiting -= 1
        self._look_at(name, domain)
        return row

    def landed(self, name: str, well: bool | None) -> float | None:
        """One of this domain is no longer on its way: it went well, or met a fault of the domain's, or (None) neither.

        Answers for how many seconds the domain should rest, None if it need not.
        """
        domain = self._of(name)
        domain.on_their_way -= 1
        if well:
            domain.share, domain.proven, domain.faults = self._most, True, 0
        elif well is not None:
            domain.share, domain.proven, domain.faults = 1, False, domain.faults + 1
        self._look_at(name, domain)
        if well is not False or domain.faults < REST_AFTER:
            return None
        return min(REST_SECONDS * 2.0 ** min(domain.faults - REST_AFTER, 20), LONGEST_REST_SECONDS)

    def full(self) -> list[str]:
        """Domains of which no more should be claimed."""
        return [name for name, domain in self._line.items() if not domain.proven and domain.surplus >= 0]

    def dismiss(self, name: str) -> list[Claimed]:
        """Takes out what waits of this domain, and answers it."""
        domain = self._line.pop(name, None)
        rows = list(domain.waiting) if domain else []
        if domain:
            domain.waiting.clear()
        self.waiting -= len(rows)
        return rows

    def clear(self) -> list[Claimed]:
        """Takes out all that waits, and answers it."""
        return [row for name in list(self._line) for row in self.dismiss(name)]

    def keep(self, fit: Callable[[int], bool]) -> None:
        """Takes out the rows whose ids are not fit."""
        rows = self.clear()
        self.add(row for row in rows if fit(row.id))

    def ids(self) -> list[int]:
        """The ids of what waits."""
        return [row.id for domain in self._line.values() for row in domain.waiting]

    def _look_at(self, name: str, domain: _Domain) -> None:
        held_up = not domain.proven and domain.on_their_way >= domain.share
        (self._held_up.add if held_up else self._held_up.discard)(name)

    def _drop_last(self, domain: _Domain) -> Claimed:
        self.waiting -= 1
        return domain.waiting.pop()

    def _of(self, name: str) -> _Domain:
        if name not in self._domains and len(self._domains) >= REMEMBERED:
            for idle in [one for one, domain in self._domains.items() if domain.idle][: REMEMBERED // 10]:
                del self._domains[idle]
        return self._domains.setdefault(name, _Domain(share=max(self._most // 2, 1)))
