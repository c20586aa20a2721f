"""What makes a client go on when its certificate is renewed: the files are looked at, and stubs that are kept call over
a channel of the pair that is there now.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from recoup_client.calling import Certificate

LOOK_SECONDS = 2.0
Stamps = tuple[tuple[int, int], ...]


class CertificateWatch:
    """Whether the files changed to another pair. One that doesn't belong together is half written, and isn't taken."""

    def __init__(self, certificate: Certificate, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._clock = (certificate.ca, certificate.cert, certificate.key), clock
        self._stamps, self._looked_at = self._look(), clock()

    def has_changed(self) -> bool:
        """Whether there is another pair than at the last time; looks at most every two seconds."""
        now = self._clock()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        try:
            stamps = self._look()
            if stamps == self._stamps or not _belong_together(*self._files) or self._look() != stamps:
                return False
        except OSError:  # Being put in place just now.
            return False
        self._stamps = stamps
        return True

    def _look(self) -> Stamps:
        return tuple((status.st_mtime_ns, status.st_ino) for status in (file.stat() for file in self._files))


def _belong_together(ca: Path, cert: Path, key: Path) -> bool:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        context.load_cert_chain(cert, key)
    except ssl.SSLError:
        return False
    return True


class Opened(Protocol):
    """The channels of one pair of certificate and key."""

    def channel(self, process: str) -> Any:
        """The channel to a process."""
        ...


class KeptChannel:
    """What a generated stub takes for its channel: behind it stands the one that `opened` has then."""

    def __init__(self, opened: Callable[[], Opened], process: str) -> None:
        self._opened, self._process = opened, process

    def unary_unary(self, *arguments: Any, **options: Any) -> _Late:
        """A call with one answer."""
        return _Late(self._opened, self._process, lambda channel: channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> _Late:
        """A call with a stream of answers."""
        return _Late(self._opened, self._process, lambda channel: channel.unary_stream(*arguments, **options))


class _Late:
    """A callable of a stub, made anew where there are other channels."""

    def __init__(self, opened: Callable[[], Opened], process: str, make: Callable[[Any], Any]) -> None:
        self._opened, self._process, self._make = opened, process, make
        self._made: tuple[Opened | None, Any] = (None, None)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._now()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)  # with_call and future of the blocking ones.

    def _now(self) -> Any:
        opened = self._opened()
        made_of, made = self._made
        if made_of is not opened:
            made = self._make(opened.channel(self._process))
            self._made = (opened, made)
        return made
