"""Who may ask a server on the user's own machine: the addresses of a request, not its contents.

A web page of any origin can make the browser send requests to 127.0.0.1. Its own name may even lead there by
DNS rebinding, so that the browser takes the page and the server for one origin. Two headers that a page
cannot set tell such requests apart: `Host` names whom the browser believes to ask, and `Origin` names the
page. Programs that are no browsers send no `Origin`.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from braingpt.errors import UserError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]@/\\?#:]+)(?::(\d{1,5}))?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_host(value: str) -> tuple[str, int | None] | None:
    """Split a `Host` header.

    Args:
        value: The header.

    Returns:
        The name in lower case and without brackets, and the port; None where the header is malformed.
    """
    if not (found := _HOST.fullmatch(value.strip())):
        return None
    name = found[1].lower().strip("[]").removesuffix(".")
    return name, int(found[2]) if found[2] else None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that the name is; None for a name that DNS resolves."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@dataclass(frozen=True)
class Access:
    """The names and origins that a server answers.

    Args:
        bound: The host that the server listens on, as the user gave it.
        hosts: Further names of the server, lower case and without a port.
        origins: Origins of web pages that may ask, such as `https://example.org`.
    """

    bound: str
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, bound: str, hosts: list[str] | None = None, origins: list[str] | None = None) -> "Access":
        """Check what a user gave.

        Args:
            bound: The host that the server listens on.
            hosts: Further names of the server.
            origins: Origins of web pages that may ask.

        Raises:
            UserError: A host or an origin is malformed.
        """
        names = set()
        for host in hosts or []:
            if (found := split_host(host)) is None or "*" in host:
                raise UserError(f"--allowed-host takes a name such as model.example.org, not '{host}'")
            names.add(found[0])
        for origin in origins or []:
            parts = urlsplit(origin)
            if not parts.scheme or not parts.netloc or parts.path or parts.query or parts.fragment:
                raise UserError(
                    f"--allowed-origin takes an origin without a path, such as https://example.org, "
                    f"not '{origin}'"
                )
        return cls(bound.lower(), frozenset(names), frozenset(origin.lower() for origin in origins or []))

    def knows_host(self, name: str, arrived: str) -> bool:
        """Whether a request for this name is meant for the server.

        Only names can be rebound: an IP address in `Host` is where the browser went. The server still takes
        few of them, unless it listens on all addresses.

        Args:
            name: From `split_host`.
            arrived: The address of this machine that the connection came to.
        """
        if name in {"localhost", self.bound, arrived} or name in self.hosts or name.endswith(".localhost"):
            return True
        if (address := _address(name)) is None:
            return False
        bound = _address(self.bound)
        return address.is_loopback or (bound is not None and bound.is_unspecified)

    def knows_origin(self, origin: str, host: str | None) -> bool:
        """Whether a page of this origin may ask: it is the server's own, or the user allowed it.

        Args:
            origin: The `Origin` header.
            host: The `Host` header.
        """
        if origin.lower() in self.origins:
            return True
        try:
            parts = urlsplit(origin.lower())
            default = _DEFAULT_PORTS.get(parts.scheme)
            page = parts.hostname, parts.port or default
        except ValueError:
            return False
        own = split_host(host or "")
        return default is not None and own is not None and page == (own[0], own[1] or default)
