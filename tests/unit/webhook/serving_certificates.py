"""Certificates to serve with, and which of them a client gets."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

from certs.authority import KeyPair, issue, make_authority

NAME = "webhook.ipvlan-bandwidth.svc"
AUTHORITY = make_authority(datetime.now(UTC), timedelta(days=9))


def pair() -> KeyPair:
    return issue(AUTHORITY, [NAME], datetime.now(UTC), timedelta(days=1))


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=AUTHORITY.certificate_pem().decode())


async def served(port: int) -> int:
    """The serial number of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(), server_hostname=NAME)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return int(certificate["serialNumber"], 16)
