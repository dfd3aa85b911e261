"""Who a request is from: the network of its client, with the proxies in between that the operator trusts.

The peer stays what it is for everybody else: what is for the operator alone asks who is connected, not who is said
to be.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence

from starlette.requests import Request

from server import log

_log = log.get(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# `192.0.2.1:443` and `[2001:db8::1]:443`, as some proxies write it.
_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class Proxies:
    """The proxies that are trusted, as addresses or networks: from these alone is X-Forwarded-For believed."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(one) for one in trusted]
        self._warned = False

    def network(self, request: Request) -> str:
        """The client's IPv4 address, or its IPv6 network: a household has a /64. Empty where that is not known."""
        peer = parse(request.client.host) if request.client else None
        hops = request.headers.getlist("x-forwarded-for")
        if peer is None or not hops:
            return _network(peer)
        if not self._trusts(peer):
            self._warn(peer)
            return _network(peer)
        return _network(self._sender(peer, ",".join(hops).split(",")))

    def _sender(self, peer: Address, hops: Sequence[str]) -> Address:
        """Each proxy appends whom it has it from, so the last one that is not ours counts. What stands before it, or
        before what is no address, anybody may have written."""
        for hop in reversed(hops):
            if (found := parse(hop)) is None:
                break
            peer = found
            if not self._trusts(peer):
                break
        return peer

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _warn(self, peer: Address) -> None:
        # All visitors seem to be one, and share its limits. A stranger's header means nothing, and fills no log.
        if not self._warned and (peer.is_private or peer.is_loopback):
            self._warned = True
            reason = "X-Forwarded-For comes from a proxy that is not in DOORBELL_TRUSTED_PROXIES, and is not believed"
            _log.warning("proxy.untrusted", peer=str(peer), reason=reason)


def parse(text: str) -> Address | None:
    """The address in `text`, with or without a port; of an IPv4 address in IPv6 the former. None: it is none."""
    found = _WITH_PORT.fullmatch(text.strip())
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(address: Address | None) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return str(address or "")
