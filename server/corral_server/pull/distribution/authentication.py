"""Authentication at a registry: the header Authorization for one repository.

- Nothing is sent before the registry has answered 401. Then its challenge decides: Basic, or Bearer with a token of its
  token server (the ``realm``).
- Credentials go to the registry, and to a realm that the registry itself named. A realm is an ``https`` URL, or
  ``http`` on a host that is reached without TLS. With ``realm_at_registry``, as Ollama demands it, its host must
  be that of the registry. A realm at a private address is refused unless the registry has one itself.
- Order: user and password of the source, then its token, which the registry accepts as it is, then the docker config's
  entry, then the Ollama key; without any of them, an anonymous token, which many registries demand for public
  repositories.
- A token lives as long as this object, which is made for one resolution. Its expiry shows as a 401, and
  ``answer`` then gets another one.

Protocol: https://distribution.github.io/distribution/spec/auth/token/ and .../auth/oauth/.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from corral_core.base.errors import SourceError
from corral_core.base.json_fields import get_str
from corral_core.base.received_json import parse_received_object
from corral_server.pull.credentials import Credentials
from corral_server.pull.distribution.ollama_key import sign_request, signature_parameters
from corral_server.pull.distribution.repository import Repository, scheme
from corral_server.pull.http_requests import HttpRequests, HttpResponse
from corral_server.registries.challenges import Challenge, parse_challenges
from corral_server.registries.docker_config import NO_LOGIN, Login, find_login

_TOKEN_LIMIT: Final = 256 * 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,65536}")
_REALM: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:[/?][\x21-\x7e]*)?")
_MAX_REALM: Final = 2048
_CLIENT: Final = "corral"


class Authentication:
    """``headers`` are those that the registry demanded last; empty before its first 401."""

    def __init__(self, http: HttpRequests, credentials: Credentials, repository: Repository) -> None:
        self._http = http
        self._repository = repository
        self._login = _login(credentials, repository)
        self._ollama_key = credentials.ollama_key if repository.realm_at_registry else ""
        self.headers: Mapping[str, str] = {}

    def answer(self, www_authenticate: str) -> None:
        """Set ``headers`` by a registry's challenge.

        Raises SourceError if there are no credentials for it or they are refused, and TransientError.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(www_authenticate))}
        if self._login.registry_token:
            self.headers = {"Authorization": f"Bearer {_checked_token(self._login.registry_token)}"}
        elif "bearer" in challenges:
            self.headers = {"Authorization": f"Bearer {self._token(challenges['bearer'])}"}
        elif "basic" in challenges and self._login.username:
            self.headers = {"Authorization": _basic(self._login)}
        else:
            raise SourceError(self.refusal("requires authentication"))

    def refusal(self, reason: str) -> str:
        """Return an error text that says what to do about a registry that denied access."""
        where = f"the registry {self._repository.registry} {reason}"
        if self._has_credentials:
            return f"{where}: check that the credentials are valid and may read {self._repository.name!r}"
        ways = "user and password, a token, or a docker config with an entry for the registry"
        if self._repository.realm_at_registry:
            ways += ", or the key of an Ollama account"
        return f"{where}: check the name; a private repository needs credentials ({ways})"

    @property
    def _has_credentials(self) -> bool:
        return self._login != NO_LOGIN or bool(self._ollama_key)

    def _token(self, challenge: Challenge) -> str:
        realm = self._realm(challenge.parameters.get("realm", ""))
        service = challenge.parameters.get("service", "")
        scopes = challenge.parameters.get("scope", "").split() or [f"repository:{self._repository.name}:pull"]
        if self._login.identity_token:
            return self._received(self._refresh(realm, service, scopes))
        parameters = [*((("service", service),) if service else ()), *(("scope", scope) for scope in scopes)]
        if self._login.username:
            headers = {"Authorization": _basic(self._login)}
            return self._received(self._get(_url(realm, parameters), headers))
        if self._ollama_key:
            url = _url(realm, sorted([*parameters, *signature_parameters().items()], key=lambda item: item[0]))
            headers = {"Authorization": sign_request(self._ollama_key, url)}
            return self._received(self._get(url, headers))
        return self._received(self._get(_url(realm, parameters), {}))

    def _get(self, url: str, headers: Mapping[str, str]) -> HttpResponse:
        registry = self._repository.url
        return self._http.request("GET", url, headers=headers, limit=_TOKEN_LIMIT, named_by=registry)

    def _refresh(self, realm: str, service: str, scopes: list[str]) -> HttpResponse:
        """Exchange a refresh token for an access token."""
        fields = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": _CLIENT,
            "scope": " ".join(scopes),
            "refresh_token": self._login.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body, registry = urlencode(fields).encode(), self._repository.url
        return self._http.request("POST", realm, headers=headers, body=body, limit=_TOKEN_LIMIT, named_by=registry)

    def _received(self, response: HttpResponse) -> str:
        if response.status in (401, 403):
            raise SourceError(self.refusal("denied access"))
        if response.status != 200:
            raise SourceError(f"the token server of {self._repository.registry} answered with status {response.status}")
        try:
            data = parse_received_object(response.body, limit=_TOKEN_LIMIT)
        except ValueError:
            data = {}
        return _checked_token(get_str(data, "token") or get_str(data, "access_token"))

    def _realm(self, realm: str) -> str:
        registry = self._repository.registry
        if not _REALM.fullmatch(realm) or len(realm) > _MAX_REALM:
            reason = "requires authentication, and names no valid URL of a token server"
            raise SourceError(f"the registry {registry} {reason}" if self._has_credentials else self.refusal(reason))
        parts = urlsplit(realm)
        host = parts.netloc.lower()
        if parts.scheme != "https" and scheme(host, self._repository.plain_http_hosts) == "https":
            raise SourceError(
                f"the registry {registry} names a token server without TLS, {host}; "
                "credentials are not sent to it unless it is one of the hosts that are reached by plain HTTP"
            )
        if self._repository.realm_at_registry and host != self._repository.host:
            raise SourceError(f"the registry {registry} names a token server on another host, {host}")
        return realm


def _login(credentials: Credentials, repository: Repository) -> Login:
    if credentials.username:
        return Login(credentials.username, credentials.password)
    if token := credentials.token_for(urlsplit(repository.url).hostname or ""):
        return Login(registry_token=token)
    return find_login(credentials.docker_config, repository.registry, repository=repository.name)


def _basic(login: Login) -> str:
    return f"Basic {base64.b64encode(f'{login.username}:{login.password}'.encode()).decode()}"


def _url(realm: str, parameters: list[tuple[str, str]]) -> str:
    base = realm.partition("#")[0]
    return f"{base}{'&' if '?' in base else '?'}{urlencode(parameters)}" if parameters else base


def _checked_token(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise SourceError("the token for the registry is not valid: it is empty, too long or has other characters")
    return token
