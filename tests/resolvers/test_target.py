"""Where operators may be: URLs, and addresses however they are written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from resolvers.errors import BadInput
from resolvers.target import TargetForbidden, checked_url, refuse_private

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a00:1::1",
]
PUBLIC = ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str):
    with pytest.raises(TargetForbidden, match="CREW_OPERATOR_PRIVATE_TARGETS"):
        refuse_private("name.example", ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str):
    refuse_private("name.example", ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_a_url_that_names_such_an_address_is_refused_when_it_is_given(address: str):
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(BadInput, match="where operators may not be") as refused:
        checked_url(f"https://{host}:8443/x", ("input", "url"), allow_private=False)
    assert refused.value.path == ("input", "url")
    assert checked_url(f"https://{host}:8443/x", (), allow_private=True)


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example/work?a=b", "http://hooks.example", "https://hooks.example:8443/", "HTTPS://Hooks.Example/"],
)
def test_urls_that_are_taken(url: str):
    assert checked_url(url, (), allow_private=False) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "empty"),
        ("/hook", "absolute http or https URL"),
        ("ftp://hooks.example/", "absolute http or https URL"),
        ("file:///etc/passwd", "absolute http or https URL"),
        ("https:///hook", "absolute http or https URL"),
        ("https://user:pass@hooks.example/", "send them in headers"),
        ("https://user@hooks.example/", "send them in headers"),
        ("https://hooks.example/#x", "fragment"),
        ("https://hooks.example:99999/", "no URL"),
        ("https://hooks.example:0/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://hooks.example/ x", "percent-encode"),
        ("https://hooks.example/\nx", "percent-encode"),
        ("https://bücher.example/", "percent-encode"),
        ("https://hooks.example/" + "x" * 2000, "at most 2000"),
    ],
)
def test_urls_that_are_refused(url: str, said: str):
    with pytest.raises(BadInput, match=said):
        checked_url(url, (), allow_private=True)
