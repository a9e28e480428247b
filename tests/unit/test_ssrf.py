"""Where webhooks may go."""

import pytest

from guardfleet.security.ssrf import is_allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "168.63.129.16",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "2001::1",
        "2001:db8::1",
        "fe80::1%eth0",
    ],
)
def test_webhooks_reach_no_private_reserved_or_wrapped_address(address: str) -> None:
    assert not is_allowed(address, [])


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_webhooks_reach_public_addresses(address: str) -> None:
    assert is_allowed(address, [])


def test_webhooks_reach_a_private_network_that_the_operator_allows() -> None:
    import ipaddress

    allowed = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fc00::/7")]
    assert is_allowed("10.1.2.3", allowed)
    assert is_allowed("::ffff:10.1.2.3", allowed)
    assert is_allowed("fc00::1", allowed)
    assert not is_allowed("127.0.0.1", allowed)
