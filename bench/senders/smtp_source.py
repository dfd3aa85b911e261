"""Postfix's smtp-source: the limit, for it writes the same bytes again and again and reads nothing but codes."""

import resource
import subprocess
import tempfile
import time

from bench import letter, outbox
from bench.peers import program
from bench.senders import Job, job, report


def _main(given: Job) -> None:
    with tempfile.NamedTemporaryFile() as file:
        # It ends lines and doubles dots itself.
        file.write(outbox.mail(0).data.replace(b"\r\n", b"\n"))
        file.flush()
        command = [program("smtp-source") or "smtp-source", "-d", "-N", "-F", file.name]
        command += ["-s", str(min(given.connections, given.count)), "-m", str(given.count)]
        command += ["-M", "localhost", "-f", letter.ADDRESS, "-t", letter.recipient(0), f"127.0.0.1:{given.port}"]
        begun = time.perf_counter()
        # It ends at the first reply that is not the expected one.
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report(given.count, seconds, used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    _main(job())
