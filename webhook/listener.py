"""HTTPS with a certificate that can change while connections are open."""

import logging
import os
import ssl

from cryptography import x509

from certs.authority import moment
from webhook.common.http_server import BoundedServer
from webhook.metrics import Metrics

logger = logging.getLogger(__name__)


class UnusableCertificateError(Exception):
    """A certificate and key that TLS cannot serve with; its text says why, and holds nothing secret."""


class Listener:
    """Listens once there is a certificate. A later one is used for new connections; open ones stay open."""

    def __init__(self, server: BoundedServer, address: str | None, port: int, metrics: Metrics) -> None:
        self._server = server
        self._address = address
        self._port = port
        self._metrics = metrics
        self._serving: bytes | None = None
        # Set from the first certificate on.
        self._current: ssl.SSLContext

    @property
    def listens(self) -> bool:
        """Whether there is a certificate."""
        return self._serving is not None

    async def use(self, chain: bytes, key: bytes) -> None:
        """Serve with this certificate (and its intermediates) and its key, in PEM; the same again has no effect.

        Raises UnusableCertificateError, and goes on with the previous one. Raises OSError when the port cannot be
        bound, and with a later certificate when descriptors or memory are short: then the previous one stays too.
        """
        pem = chain + b"\n" + key
        if pem == self._serving:
            return
        # A new context: a used one would keep a former certificate with another type of key beside this one, and half
        # of a pair that does not match.
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
            # Not by `sni_callback`: for each name that is not ASCII, Python writes a traceback to standard error.
            await self._server.listen(self._address, self._port, lambda: self._current)


def server_context() -> ssl.SSLContext:
    """TLS 1.2 and up for the server; `load` gives it a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL's default groups include ffdhe8192, for which a stranger's made-up key share costs the event loop a
    # hundred times what a curve does (D(HE)at: CVE-2002-20001, CVE-2022-40735); ten a second would use it up. This
    # leaves one curve, which all clients know; X25519 cannot be named in Python 3.11. Clients that first send a share
    # for another, as Go does, need one more round trip per connection, and they keep their connections.
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
        # An empty password: without one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
