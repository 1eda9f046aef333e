"""Where the API server is, and who we are there: by a Pod's service account, or by a person's kubeconfig.

In a Pod, twenty lines of code find the credentials; the client library, which costs 39 MB, is imported only to read a
kubeconfig, that is on a person's machine.
"""

import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SERVICE_ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

logger = logging.getLogger(__name__)


class ConfigurationError(Exception):
    """The environment does not say where the API server is, or who we are: nothing to retry."""


class NoTokenError(Exception):
    """There is no token to call with at the moment."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is, and how to speak to it.

    `tls` gives the context for a call, the same one for as long as the same authorities are trusted.
    `authorization` gives the Authorization header, or None, anew for each call, as tokens rotate. It raises
    NoTokenError.
    """

    url: str
    tls: Callable[[], ssl.SSLContext]
    authorization: Callable[[], Awaitable[str | None]]
    server_name: str | None = None
    proxy: str | None = None


class Trust:
    """The authorities in a file that may be replaced while we run, as when the cluster's CA is rotated.

    Raises OSError when there are none to begin with.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._version = self._complained = self._look()
        self._context = ssl.create_default_context(cafile=file)

    def context(self) -> ssl.SSLContext:
        """The context that trusts the authorities now in the file, or those when it could last be read."""
        # kubelet replaces this file, also with each new token. A call costs only a stat() of it, and a new context once
        # an hour costs little.
        version = self._look()
        if version != self._version:
            try:
                self._context = ssl.create_default_context(cafile=self._file)
            except OSError as error:  # tried again at the next call: it may be that we are out of descriptors
                if version != self._complained:
                    logger.warning(
                        "cannot read the cluster's CA certificate %s: %s; what it said before stays trusted until it "
                        "can be read",
                        self._file,
                        error,
                    )
                self._complained = version
            else:
                self._version = version
        return self._context

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def in_cluster(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT_FOLDER) -> Endpoint | None:
    """The endpoint that a Pod's environment and its service account describe; None outside of a Pod.

    The token is read at each call: kubelet replaces the file well before the old token expires (KEP-1205). The CA file
    is checked as often: kubelet replaces it when the cluster's CA is rotated.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token = folder / "token"
    if not host or not port or not token.exists():
        return None
    try:
        trust = Trust(folder / "ca.crt")
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the cluster's CA certificate {folder / 'ca.crt'}: {error}; is the volume of the "
            "service account's token mounted whole?"
        ) from error

    async def authorization() -> str:
        try:
            return f"Bearer {token.read_text(encoding='ascii').strip()}"
        except (OSError, UnicodeError) as error:
            raise NoTokenError(f"cannot read the service account's token {token}: {error}") from error

    bracketed = f"[{host}]" if ":" in host else host
    return Endpoint(f"https://{bracketed}:{port}", trust.context, authorization)


async def from_kubeconfig(environ: Mapping[str, str]) -> Endpoint:
    """The endpoint of the current context of $KUBECONFIG, or else of ~/.kube/config; ConfigurationError otherwise."""
    from kubernetes_asyncio import config  # noqa: PLC0415 - costs 39 MB, and no Pod needs it
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - as above

    location = environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(os.path.exists(path) for path in location.split(os.pathsep)):  # noqa: PTH110, ASYNC240 - once, at start
        if environ.get("KUBERNETES_SERVICE_HOST"):
            token = SERVICE_ACCOUNT_FOLDER / "token"
            raise ConfigurationError(
                f"this Pod has no token at {token}: does it say automountServiceAccountToken: false?"
            )
        raise ConfigurationError(f"not in a Pod, and there is no kubeconfig at {location}: set KUBECONFIG to one")
    settings: Any = Configuration()
    try:
        await config.load_kube_config(location, client_configuration=settings, persist_config=False)
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
    except Exception as error:  # the library raises whatever its parsers do
        raise ConfigurationError(f"cannot use the kubeconfig {location}: {error}") from error
    if not settings.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE

    async def authorization() -> str | None:
        value: str | None = await settings.get_api_key_with_prefix("BearerToken")
        return value

    return Endpoint(settings.host, lambda: tls, authorization, settings.tls_server_name, settings.proxy)
