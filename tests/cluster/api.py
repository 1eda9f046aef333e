"""The API server as an administrator calls it, where a kubectl for each call would cost too much CPU."""

import base64
import http.client
import json
import ssl
import tempfile
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster, ClusterError


class Api:
    """One connection, kept open within a `with` block, and made anew when it broke."""

    def __init__(self, cluster: Cluster, *, timeout_s: float = 40.0) -> None:
        self._timeout_s = timeout_s
        config = json.loads(cluster.paths.kubeconfig.read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._tls = ssl.create_default_context(
            cadata=base64.b64decode(server["certificate-authority-data"]).decode("ascii")
        )
        with tempfile.NamedTemporaryFile() as file:
            for part in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[part]) + b"\n")
            file.flush()
            self._tls.load_cert_chain(file.name)
        address = urlsplit(server["server"])
        self._host, self._port = address.hostname or "", address.port or 443
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(
        self, method: str, path: str, body: object = None, *, content: str = "application/json"
    ) -> tuple[int, Any]:
        """The status and the answer; raises ClusterError when there is none."""
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        headers = {"Content-Type": content, "Accept": "application/json"}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._close()
            raise ClusterError(f"{method} {path}: {type(error).__name__}: {error}") from error

    def get(self, path: str) -> Any:
        """An object; None when there is none. Raises ClusterError."""
        status, answer = self.call("GET", path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise ClusterError(f"GET {path}: {status} {answer.get('message')}")
        return answer
