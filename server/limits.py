"""Who may do how much: fixed windows, counted in the database and so right across processes.

The strategy is the library's; the storage is ours, for it has none that shares our transactions: what is refused and
what is written are one. Keys of visitors are hashes. Knows no HTTP.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from time import monotonic

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import BindParameter, Connection, Double, bindparam, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from server.db.tables import LATE_SECONDS, counters, now
from server.signing import Keys

# Of one client network at one site without a form's token, besides what site.toml says.
UNTOKENED = "120 per hour"
# Mails to one address, from all sites.
RECIPIENT = "5 per day"
# Mails of one kind to one address, from one site. `again`: to somebody who wanted no more.
MAILS = {"confirm": "3 per day", "welcome": "3 per day", "already": "1 per day", "again": "1 per 7 days"}
# The share of a site's limit from which on it is under attack, and a proof of work is asked for.
ATTACK = 0.2
# A proof of work is good for one signup, for longer than it can be valid.
PROOF = "1 per 2 hours"

# Refusals that are remembered, so that they cost no transaction.
_REMEMBERED = 10_000
# Of addresses of these, dots before the @ mean nothing to the provider.
_DOTLESS = frozenset({"gmail.com", "googlemail.com"})

_end: BindParameter[float] = bindparam("seconds", type_=Double())
# An end further ahead than any that is written: the clock was set back.
_over = or_(counters.c.until <= now(), counters.c.until > now() + _end + LATE_SECONDS)


def _upsert(insert: Callable[..., sqlite.Insert] | Callable[..., postgresql.Insert]) -> object:
    fresh = insert(counters).values(key=bindparam("name"), count=bindparam("amount"), until=now() + _end)
    return fresh.on_conflict_do_update(
        index_elements=[counters.c.key],
        set_={
            "count": case((_over, bindparam("amount")), else_=counters.c.count + bindparam("amount")),
            "until": case((_over, now() + _end), else_=counters.c.until),
        },
    ).returning(counters.c.count)


_UPSERT = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
_COUNT = select(counters.c.count).where(counters.c.key == bindparam("name"), counters.c.until > now())
_LEFT = select(counters.c.until - now()).where(counters.c.key == bindparam("name"))


class Counters(Storage):
    """The library's storage, in the table `counters`, inside the transaction of a connection."""

    STORAGE_SCHEME = None

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._increment = _UPSERT[connection.dialect.name]

    @property
    def base_exceptions(self) -> type[Exception]:
        return DBAPIError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        values = {"name": key, "amount": amount, "seconds": float(expiry)}
        return int(self._connection.execute(self._increment, values).scalar_one())  # type: ignore[call-overload]

    def get(self, key: str) -> int:
        return self._connection.execute(_COUNT, {"name": key}).scalar() or 0

    def get_expiry(self, key: str) -> float:
        """Seconds from now, by the database's clock: no other is asked."""
        return self._connection.execute(_LEFT, {"name": key}).scalar() or 0.0

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        return self._connection.execute(delete(counters)).rowcount

    def clear(self, key: str) -> None:
        self._connection.execute(delete(counters).where(counters.c.key == key))


rate: Callable[[str], RateLimitItem] = cache(parse)


def canonical(email: str) -> str:
    """The address that this one reaches too: without capitals and +tag, and without dots where they mean nothing."""
    local, _, domain = email.lower().rpartition("@")
    local = local.partition("+")[0] or local
    return f"{local.replace('.', '') if domain in _DOTLESS else local}@{domain.replace('googlemail.com', 'gmail.com')}"


class Gate:
    """Counts who comes, in a transaction that is given, and remembers in this process who was refused.

    Not `enabled`: nobody is refused, and nothing is counted.
    """

    def __init__(self, keys: Keys, enabled: bool = True) -> None:
        self.enabled = enabled
        self._keys = keys
        self._refused: dict[str, float] = {}

    def name(self, kind: str, *of: str) -> str:
        """The key of what is counted: nobody can read from it whom it is about."""
        return f"{kind}/{self._keys.digest('limits', chr(0).join(of))}"

    def hit(self, connection: Connection, limit: str, name: str, cost: int = 1) -> bool:
        """Counts one more. Whether that is within `limit`, like "60 per 10 minutes"."""
        return not self.enabled or FixedWindowRateLimiter(Counters(connection)).hit(rate(limit), name, cost=cost)

    def used(self, connection: Connection, limit: str, name: str, share: float) -> bool:
        """Whether more than this share of `limit` is used up; counts nothing."""
        if not self.enabled:
            return False
        left = int(rate(limit).amount * (1 - share))
        return not FixedWindowRateLimiter(Counters(connection)).test(rate(limit), name, cost=left)

    def seconds_left(self, connection: Connection, limit: str, name: str) -> int:
        """Until the window of `limit` ends; at least 1."""
        return max(ceil(FixedWindowRateLimiter(Counters(connection)).get_window_stats(rate(limit), name)[0]), 1)

    def remember(self, name: str, seconds: int) -> None:
        """`name` is refused for so long."""
        while len(self._refused) >= _REMEMBERED:
            del self._refused[next(iter(self._refused))]  # the oldest
        self._refused[name] = monotonic() + seconds

    def remembered(self, name: str) -> int | None:
        """For how many seconds `name` is still refused, as far as this process knows."""
        until = self._refused.get(name)
        if until is None:
            return None
        if (left := until - monotonic()) <= 0:
            del self._refused[name]
            return None
        return ceil(left)
