"""Who may speak to the viewer."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from websockets.http11 import Request, Response


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Gate:
    """What a request must show before it is answered."""

    token: str | None  # None: only this machine reaches the port
    port: int

    def answer(self, request: Request) -> Response | None:
        """The refusal of a request; None lets it in."""
        return None
