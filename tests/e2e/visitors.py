"""Visitors who sign up one after the other, for tests that want load."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass
class Visitors:
    """Post one after the other, by JSON and by form, whether or not there is a server. Notes who was accepted."""

    url: str
    name: str = "visitor"
    accepted: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)  # with which status
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, name: str) -> None:
        with httpx.Client(timeout=30) as client:
            number = 0
            while not self.ended.is_set():
                number += 1
                email = f"{name}-{number}@{name}.example.com"
                form = {"site": "bikes", "email": email, "colour": "Red"}
                try:
                    if number % 2:
                        answer = client.post(f"{self.url}/signup", json=form)
                    else:
                        answer = client.post(f"{self.url}/signup", data=form)
                except httpx.TransportError:
                    self.ended.wait(0.05)
                    continue
                if answer.status_code in (202, 303):
                    self.accepted.append(email)
                else:
                    self.refused.append(answer.status_code)
                self.ended.wait(0.005)

    @contextmanager
    def posting(self, count: int) -> Iterator[None]:
        threads = [threading.Thread(target=self.run, args=(f"{self.name}-{number}",)) for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()
