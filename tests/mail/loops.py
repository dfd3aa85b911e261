"""Both event loops: the server runs on uvloop where there is one."""

import asyncio
from collections.abc import Callable, Mapping

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop
