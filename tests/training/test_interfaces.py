from __future__ import annotations

from giblet_hpc.training.interfaces import address_of


def test_addresses_of_interfaces() -> None:
    assert address_of("lo") == "127.0.0.1"
    assert address_of("lo,eth7") == "127.0.0.1", "the first counts"
    assert address_of("none0") == address_of("") == ""
