"""Doorbell: its dispatcher and pool, with rows that are due in a database of their own.

Arguments: PORT COUNT CONNECTIONS FILE [LOG LEVEL]. The server itself logs each mail at `info`.
"""

import gc
import sys
import time
from pathlib import Path

import uvloop

from bench import outbox
from bench.senders import Job, job, report, rows
from server import log


async def _main(given: Job, file: Path) -> None:
    async with outbox.database(file) as opened:
        gc.freeze()
        used = time.process_time()
        seconds = await outbox.deliver(opened, file, given.port, given.connections)
        cpu = time.process_time() - used
    report(outbox.states(file).get("sent", 0), seconds, cpu)


if __name__ == "__main__":
    log.configure(level=sys.argv[5] if len(sys.argv) > 5 else "warning")
    uvloop.run(_main(job(), rows()))
