"""Where the endpoint listens: HOST:PORT in its forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe.pipeline.telemetry import address


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_and_port(ip: object, port: int) -> None:
    host = str(ip)
    assert address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)


@pytest.mark.parametrize(
    "text", ["", "9464", ":9464", "host", "host:", "host:x", "host:-1", "host:65536", "::1:9464", "http://host:1", "a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        address(text)
