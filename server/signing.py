"""Signed texts: links and tokens that nobody else can make. Each is for one purpose and is worth nothing for another.

The secrets are the installation's, so that a link still works after a restart and in another process. They rotate: the
first signs, all are believed. Knows nothing of what is signed.
"""

import hashlib
import hmac
import os
import secrets as random
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import time

from itsdangerous import BadSignature, Signer, TimestampSigner


class BadToken(Exception):
    """Not signed by us, or not for this."""


class Keys:
    """What signs. `secrets`: the newest first, at least one."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = list(reversed(secrets))  # itsdangerous has the newest last
        self._signers: dict[tuple[type[Signer], str], Signer] = {}

    def sign(self, purpose: str, value: str) -> str:
        """`value`, readable, with a signature that never expires. As long for each value of one length."""
        return self._signer(Signer, purpose).sign(value).decode()

    def read(self, purpose: str, token: str) -> str:
        """The value in a token of `sign`. Raises BadToken."""
        try:
            return self._signer(Signer, purpose).unsign(_plain(token)).decode()
        except (BadSignature, UnicodeDecodeError):
            raise BadToken from None

    def stamp(self, purpose: str, value: str) -> str:
        """The same with the time in it."""
        return self._signer(TimestampSigner, purpose).sign(value).decode()

    def read_stamped(self, purpose: str, token: str) -> tuple[str, float]:
        """The value in a token of `stamp`, and how many seconds ago it was made. Raises BadToken."""
        signer = self._signer(TimestampSigner, purpose)
        assert isinstance(signer, TimestampSigner)
        try:
            value, made = signer.unsign(_plain(token), return_timestamp=True)
            return value.decode(), time() - made.timestamp()
        except (BadSignature, UnicodeDecodeError):
            raise BadToken from None

    def digest(self, purpose: str, value: str) -> str:
        """What stands for `value` where it must be recognised and not known: 32 hexadecimal characters."""
        key = _derived(purpose, self._secrets[-1])
        return hmac.new(key, value.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]

    def secret(self, purpose: str) -> str:
        """A secret derived for a library that signs by itself."""
        return self.digest("secret", purpose)

    def _signer(self, kind: type[Signer], purpose: str) -> Signer:
        if (found := self._signers.get((kind, purpose))) is None:
            # Derived here, once: the library would derive its keys anew for each token.
            keys = [_derived(f"doorbell.{purpose}", secret) for secret in self._secrets]
            found = kind(keys, key_derivation="none", digest_method=hashlib.sha256)
            self._signers[kind, purpose] = found
        return found


def _derived(purpose: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest()


def _plain(token: str) -> str:
    if not token.isascii() or len(token) > 1000:
        raise BadToken
    return token


def kept(file: Path) -> list[str]:
    """The secret in `file`, which is made where it is missing; of several processes that do so, one wins.

    Raises OSError.
    """
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, prefix=file.name, delete=False, encoding="ascii") as fresh:
            fresh.write(random.token_urlsafe(32))
            fresh.flush()
            os.fsync(fresh.fileno())
        try:
            os.link(fresh.name, file)  # whole, and never over another's
        except FileExistsError:
            pass
        finally:
            os.unlink(fresh.name)
    if not (secret := file.read_text(encoding="ascii").strip()):
        raise OSError(f"{file}: is empty")
    return [secret]
