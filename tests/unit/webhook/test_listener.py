"""HTTPS on loopback: certificates change, connections stay."""

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from prometheus_client import generate_latest

from certs.authority import KeyPair, pem_of
from tests.ports import free_port
from tests.unit.webhook.serving_certificates import AUTHORITY, NAME, pair, served, trusting
from webhook.common.http_server import BoundedServer
from webhook.listener import Listener, UnusableCertificateError
from webhook.metrics import Metrics

DAY = timedelta(days=1)


@dataclass
class Listening:
    listener: Listener
    metrics: Metrics
    port: int

    async def use(self, made: KeyPair) -> None:
        await self.listener.use(made.certificate_pem(), made.key_pem())

    async def serial(self) -> int:
        return await served(self.port)


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(float(request.query.get("s", 0)))
        assert request.transport is not None
        return web.Response(text=str(request.transport.get_extra_info("peername")))

    server = BoundedServer(slow)
    metrics = Metrics()
    port = free_port()
    try:
        yield Listening(Listener(server, "127.0.0.1", port, metrics), metrics, port)
    finally:
        await server.close()


async def test_it_listens_from_the_first_certificate_on() -> None:
    async with listening() as here:
        assert not here.listener.listens
        with pytest.raises(OSError, match="Connect call failed"):
            await here.serial()
        made = pair()
        await here.use(made)
        assert here.listener.listens
        assert await here.serial() == made.certificate.serial_number


async def test_another_certificate_is_for_new_connections_and_no_open_one_ends() -> None:
    tls = trusting()
    async with listening() as here, aiohttp.ClientSession() as session:
        await here.use(pair())
        url = f"https://127.0.0.1:{here.port}/"

        async def get(seconds: float) -> str:
            """The client's address and port, as the server sees them: another connection has another."""
            async with session.get(url, params={"s": str(seconds)}, ssl=tls, server_hostname=NAME) as response:
                return await response.text()

        before = await get(0)
        in_flight = asyncio.create_task(get(0.1))
        await asyncio.sleep(0.02)
        for _ in range(3):
            made = pair()
            await here.use(made)
            assert await here.serial() == made.certificate.serial_number
        assert await in_flight == before
        assert await get(0) == before


async def test_a_certificate_of_another_kind_of_key_takes_the_place_of_the_one_before() -> None:
    async with listening() as here:
        await here.use(pair())
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([])
        now = datetime.now(UTC)
        other = (
            x509.CertificateBuilder(name, name, key.public_key(), 77, now, now + DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pkcs8 = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
        await here.listener.use(pem_of(other), pem)
        served = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", here.port))
        assert x509.load_pem_x509_certificate(served.encode()) == other
        last = pair()
        await here.use(last)
        assert await here.serial() == last.certificate.serial_number


async def test_the_same_certificate_again_is_loaded_once_and_told_in_metrics() -> None:
    async with listening() as here:
        made = pair()
        for _ in range(3):
            await here.use(made)
        scraped = generate_latest(here.metrics.registry).decode()
        assert "ipvlan_bandwidth_certificate_loads_total 1.0" in scraped
        (told,) = re.findall(r"^ipvlan_bandwidth_certificate_expiry_timestamp_seconds (.*)$", scraped, re.MULTILINE)
        assert float(told) == made.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (b"garbage", pair().key_pem()),
        (pair().certificate_pem(), b"garbage"),
        (pair().certificate_pem(), pair().key_pem()),
        (b"", b""),
    ],
)
async def test_what_cannot_be_served_is_refused_and_the_one_before_stays(chain: bytes, key: bytes) -> None:
    async with listening() as here:
        good = pair()
        await here.use(good)
        with pytest.raises(UnusableCertificateError, match="no certificate with its key"):
            await here.listener.use(chain, key)
        assert await here.serial() == good.certificate.serial_number


async def test_tls_1_2_is_the_least_and_the_key_is_on_no_disk() -> None:
    async with listening() as here:
        await here.use(pair())
        old = ssl.create_default_context(cadata=AUTHORITY.certificate_pem().decode())
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=old, server_hostname=NAME)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.close()
        await writer.wait_closed()


def point(curve: ec.EllipticCurve) -> bytes:
    public = ec.generate_private_key(curve).public_key()
    return public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def hello(group: int, share: bytes, name: bytes = NAME.encode()) -> bytes:
    """A client's first record of TLS 1.3, to a server of a name. It offers a single group, and brings its share."""

    def sized(width: int, *parts: bytes) -> bytes:
        return sum(map(len, parts)).to_bytes(width) + b"".join(parts)

    def extension(number: int, content: bytes) -> bytes:
        return number.to_bytes(2) + sized(2, content)

    named = group.to_bytes(2)
    extensions = (
        extension(0, sized(2, b"\0" + sized(2, name))),  # server_name
        extension(10, sized(2, named)),  # supported_groups
        extension(13, sized(2, b"\x04\x03\x08\x04")),  # signature_algorithms, of ECDSA and RSA
        extension(43, sized(1, b"\x03\x04")),  # supported_versions: TLS 1.3
        extension(51, sized(2, named, sized(2, share))),  # key_share
    )
    body = b"\x03\x03" + bytes(32) + sized(1) + sized(2, b"\x13\x01") + sized(1, b"\0") + sized(2, *extensions)
    return b"\x16\x03\x01" + sized(2, b"\x01" + sized(3, body))


@pytest.mark.parametrize(
    ("group", "share", "agrees"),
    [
        (0x0017, point(ec.SECP256R1()), True),
        (0x0019, point(ec.SECP521R1()), False),
        # For a stranger any square will do; the server would compute with 8192 bits.
        (0x0100, (4).to_bytes(256), False),
        (0x0104, (4).to_bytes(1024), False),
    ],
    ids=["secp256r1", "secp521r1", "ffdhe2048", "ffdhe8192"],
)
async def test_keys_are_agreed_on_by_one_cheap_curve_alone(group: int, share: bytes, agrees: bool) -> None:
    async with listening() as here:
        await here.use(pair())
        # The contexts of later certificates are those of later connections.
        await here.use(pair())
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(hello(group, share))
        assert (await reader.read(1) == b"\x16") is agrees  # a record of the handshake
        writer.close()


@pytest.mark.parametrize(
    "name", [NAME.encode(), b"\xff" * 255, b"xn--a", b"a..b"], ids=["ours", "no text", "idna", "empty"]
)
async def test_whatever_server_a_client_names_it_is_ours_and_nothing_is_written_of_it(
    monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    written: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: written.append(told.exc_value))
    async with listening() as here:
        await here.use(pair())
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(hello(0x0017, point(ec.SECP256R1()), name))
        async with asyncio.timeout(5):
            answer = await reader.read(6)
        writer.close()
    assert written == []
    assert (answer[0], answer[5]) == (0x16, 2)  # a record of the handshake, and in it the server's hello
