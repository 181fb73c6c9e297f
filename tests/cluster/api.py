"""Small client of the Kubernetes API for the tests: JSON in and out, without a client library.

It accepts any kubeconfig whose user has a token or a client certificate. Every request has a timeout.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlencode, urlsplit

from corral_kube.bounded_json import decode
from tests.support.waiting import until

Object = dict[str, object]
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
MODELS = "/apis/corral.dev/v1alpha1"

_TIMEOUT = 10.0
_WATCH_SECONDS = 240
_BUSY_SECONDS = 30


class ApiError(Exception):
    """A response other than 2xx, with its status code and the server's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Gone(Exception):
    """The resource version of a watch has expired; list again."""


class Api:
    """Client of one API server. Thread-safe: every request has its own connection."""

    def __init__(self, kubectl: Path, kubeconfig: Path) -> None:
        view = ("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        command = [str(kubectl), "--kubeconfig", str(kubeconfig), *view]
        config = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        address = urlsplit(cluster["server"])
        self._host, self._port = address.hostname or "", address.port or 443
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._tls = _tls(cluster, user)

    def get(self, path: str, **query: str) -> Object:
        return self.request("GET", path, query=query)

    def find(self, path: str) -> Object | None:
        """Return the object, None if it does not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[Object]:
        return cast("list[Object]", self.get(path, **query)["items"])

    def create(self, path: str, body: Mapping[str, object]) -> Object:
        return self.request("POST", path, body=body)

    def patch(self, path: str, body: Mapping[str, object]) -> Object:
        """Apply a JSON merge patch."""
        return self.request("PATCH", path, body=body, content=MERGE)

    def delete(self, path: str, **options: object) -> None:
        """Delete the object if it exists; ``options`` are those of DeleteOptions."""
        try:
            self.request("DELETE", path, body={"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except ApiError as error:
            if error.status != 404:
                raise

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Object:
        """Send one request. Raises ApiError, or OSError when the server is unreachable.

        A request that is answered with 429 was not executed; it is sent again, as every Kubernetes client does. The
        API server answers so for a moment after a change of a CRD ("storage is (re)initializing").
        """

        def answer() -> tuple[Object] | None:
            try:
                with self._connected(method, path) as connection:
                    return (self._exchange(connection, method, path, body=body, query=query or {}, content=content),)
            except ApiError as error:
                if error.status == 429:
                    return None
                raise

        return until(answer, _BUSY_SECONDS, what=f"an answer other than 429 to {method} {path}", interval=0.2)[0]

    @contextmanager
    def prepared_patch(self, path: str, body: Mapping[str, object]) -> Iterator[Callable[[], Object]]:
        """Yield a function that sends a merge patch on a connection that is open already."""
        with self._connected("PATCH", path) as connection:
            connection.connect()
            yield lambda: self._exchange(connection, "PATCH", path, body=body, query={}, content=MERGE)

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None,
        query: Mapping[str, str],
        content: str,
    ) -> Object:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | {"Content-Type": content, "Accept": "application/json"}
        connection.request(method, f"{path}?{urlencode(query)}" if query else path, data, headers)
        response = connection.getresponse()
        payload = response.read()
        if response.status >= 300:
            raise ApiError(response.status, _message(payload))
        return cast("Object", decode(payload or b"{}")[0])

    @contextmanager
    def _connected(self, method: str, path: str) -> Iterator[http.client.HTTPSConnection]:
        connection = self._connection(_TIMEOUT)
        try:
            yield connection
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def watch(self, path: str, version: str, **query: str) -> Iterator[tuple[str, Object]]:
        """Yield ``(ADDED | MODIFIED | DELETED, object)`` from a resource version on, until the server ends the watch.

        Raises Gone, or OSError when the server is unreachable.
        """
        options = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS), **query}
        connection = self._connection(_WATCH_SECONDS + _TIMEOUT)
        try:
            connection.request("GET", f"{path}?{urlencode(options)}", None, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ConnectionError(f"watch of {path}: {response.status}")
            while line := response.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Gone(str(event["object"].get("message")))
                yield event["type"], event["object"]
        except (http.client.HTTPException, json.JSONDecodeError) as error:
            raise ConnectionError(f"watch of {path}: {error!r}") from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)


def _message(payload: bytes) -> str:
    """Return the message of an error: that of a Status object, or plain text."""
    try:
        return str(json.loads(payload)["message"])
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace").strip()


def _tls(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(cadata=None if authority is None else base64.b64decode(authority).decode())
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]) + b"\n")
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
    return context


def at(value: object, *path: str | int) -> object:
    """Return what is at ``path`` in a JSON value; None if any step is missing."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def condition(resource: Object | None, kind: str) -> Object:
    """Return the condition of this type in a resource's status; empty if it has none."""
    conditions = at(resource, "status", "conditions")
    listed = conditions if isinstance(conditions, list) else []
    return next((item for item in listed if isinstance(item, dict) and item.get("type") == kind), {})
