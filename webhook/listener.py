"""HTTPS with a certificate that can change while connections are open."""

import logging
import os
import ssl

from cryptography import x509

from certs.authority import moment
from webhook.http_server import BoundedServer
from webhook.metrics import Metrics

logger = logging.getLogger(__name__)


class UnusableCertificateError(Exception):
    """A certificate and key that TLS cannot serve with; its text says why, and holds nothing secret."""


class Listener:
    """Listens once there is a certificate; later ones are for connections from then on, and no open one ends."""

    def __init__(self, server: BoundedServer, address: str | None, port: int, metrics: Metrics) -> None:
        self._server = server
        self._address = address
        self._port = port
        self._metrics = metrics
        self._serving: bytes | None = None
        # From the first certificate on.
        self._current: ssl.SSLContext

    @property
    def listens(self) -> bool:
        """Whether there is a certificate."""
        return self._serving is not None

    async def use(self, chain: bytes, key: bytes) -> None:
        """Serve with this certificate (and those between it and its CA) and its key, in PEM; the same again is nothing.

        Raises UnusableCertificateError, and goes on with the one before. OSError when the port cannot be had.
        """
        pem = chain + b"\n" + key
        if pem == self._serving:
            return
        # A context of its own: one that has served keeps a former certificate of another kind of key beside this one,
        # and half of a pair that does not match.
        context = server_context()
        try:
            expires = x509.load_pem_x509_certificate(chain).not_valid_after_utc
            load(context, pem)
        except (ValueError, ssl.SSLError) as error:
            raise UnusableCertificateError(f"no certificate with its key: {error}") from error
        first, self._serving, self._current = self._serving is None, pem, context
        self._metrics.serves_with(expires.timestamp())
        logger.info("serving with a certificate that expires on %s", moment(expires))
        if first:
            # Not by `sni_callback`: of a name that is not ASCII, Python writes a traceback to standard error each time.
            await self._server.listen(self._address, self._port, lambda: self._current)


def server_context() -> ssl.SSLContext:
    """TLS 1.2 and up for the server; `load` gives it a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL's own choice has ffdhe8192 in it, for which a stranger's made-up share costs the event loop a hundred
    # times what a curve does (D(HE)at: CVE-2002-20001, CVE-2022-40735), and ten a second would use it up. This leaves
    # one curve, which all clients know; X25519 cannot be named in Python 3.11. Those that send a share for another
    # first, as Go does, have one more round trip for each connection, and they keep their connections.
    context.set_ecdh_curve("prime256v1")
    context.set_alpn_protocols(["http/1.1"])
    return context


def load(context: ssl.SSLContext, pem: bytes) -> None:
    """Use a certificate and its key for all handshakes from now on; connections that are open stay as they are."""
    # `ssl` loads certificates from files only: this one is in memory alone, so that the key is on no disk.
    descriptor = os.memfd_create("serving", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(pem)
        # No password: without one given, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
