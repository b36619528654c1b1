"""Where operators may be: URLs as they are given, and addresses as their names resolve."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from resolvers import check
from resolvers.errors import BadInput, Path

LONGEST_URL = 2000
_NAT64 = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class TargetForbidden(Exception):
    """No delivery goes there. Says why."""


def checked_url(url: str, path: Path, *, allow_private: bool) -> str:
    """Absolute http or https, without credentials. An address that is written out is checked here, a name when it is resolved."""
    check.text(url, path, "url", LONGEST_URL)
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise BadInput(
            "url holds characters that a URL cannot have: percent-encode them, write names in punycode", path
        )
    parts = _split(url, path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"url is {check.shown(url)}; it must be an absolute http or https URL with a host", path)
    if parts.username is not None or parts.password is not None:
        raise BadInput("url holds credentials, which would be shown to all who read it: send them in headers", path)
    if parts.fragment:
        raise BadInput("url holds a fragment (#…), which is never sent: leave it out", path)
    address = written_address(parts.hostname)
    if address is not None and not allow_private:
        try:
            refuse_private(parts.hostname, address)
        except TargetForbidden as error:
            raise BadInput(str(error), path) from None
    return url


def _split(url: str, path: Path) -> SplitResult:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        if parts.port == 0:
            raise ValueError("port 0")
        return parts
    except ValueError as error:
        raise BadInput(f"url is {check.shown(url)}, which is no URL: {error}", path) from None


def written_address(host: str) -> Address | None:
    """The address that a host is written as; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def refuse_private(host: str, address: Address) -> None:
    """Raises TargetForbidden for an address that is not public: loopback, private, link-local, and whatever stands for one."""
    inner = _inside(address)
    if inner.is_global and not inner.is_multicast:
        return
    if inner.is_loopback:
        kind = "a loopback address"
    elif inner.is_link_local:
        kind = "a link-local address"
    elif inner.is_multicast:
        kind = "a multicast address"
    else:
        kind = "a private or reserved address"
    where = str(address) if host == str(address) else f"{host} ({address})"
    raise TargetForbidden(
        f"{where} is {kind}, where operators may not be; the server's setting CREW_OPERATOR_PRIVATE_TARGETS allows it"
    )


def _inside(address: Address) -> Address:
    """IPv6 addresses that lead to an IPv4 one, as that."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address
