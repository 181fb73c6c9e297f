from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.distribution.authentication import Authentication
from corral_server.pull.distribution.repository import Repository
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.http_requests import HttpResponse
from tests.pull.fake_registry import FakeRegistry, Request, response

REGISTRY = "registry.example"
REALM = "https://auth.example/token"
BEARER = f'Bearer realm="{REALM}",service="registry.example",scope="repository:team/model:pull"'
BASIC = 'Basic realm="x"'


def _issue(token: str = "abc") -> Callable[[Request], HttpResponse]:
    return lambda request: response(200, request.url, {"token": token})


def _authentication(
    credentials: Credentials, http: FakeRegistry, *, plain: tuple[str, ...] = (), ollama: bool = False
) -> Authentication:
    repository = Repository(REGISTRY, "team/model", plain, realm_at_registry=ollama)
    return Authentication(http, credentials, repository)


def _http(answer: Callable[[Request], HttpResponse] | None = None) -> FakeRegistry:
    answer = answer or _issue()
    return FakeRegistry(host="none", others={"auth.example": answer, REGISTRY: answer, "127.0.0.1:5001": answer})


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _docker_config(**entry: str) -> Credentials:
    return Credentials(docker_config=json.dumps({"auths": {REGISTRY: entry}}))


def test_nothing_is_sent_before_a_challenge() -> None:
    assert _authentication(Credentials(username="u", password="p"), _http()).headers == {}


def test_anonymous_token() -> None:
    http = _http()
    authentication = _authentication(NO_CREDENTIALS, http)
    authentication.answer(BEARER)
    assert authentication.headers == {"Authorization": "Bearer abc"}
    assert "Authorization" not in http.requests[0].headers
    assert parse_qs(urlsplit(http.requests[0].url).query) == {
        "service": ["registry.example"],
        "scope": ["repository:team/model:pull"],
    }


def test_scope_defaults_to_reading_the_repository() -> None:
    http = _http()
    _authentication(NO_CREDENTIALS, http).answer(f'Bearer realm="{REALM}?x=1"')
    assert http.requests[0].url == f"{REALM}?x=1&scope=repository%3Ateam%2Fmodel%3Apull"


def test_user_and_password_go_to_the_token_server() -> None:
    http = _http()
    authentication = _authentication(Credentials(username="u", password="p"), http)
    authentication.answer(BEARER)
    assert http.requests[0].headers["Authorization"] == _basic("u", "p")
    assert authentication.headers == {"Authorization": "Bearer abc"}


def test_user_and_password_answer_a_basic_challenge() -> None:
    http = _http()
    authentication = _authentication(_docker_config(username="u", password="p"), http)
    authentication.answer(BASIC)
    assert authentication.headers == {"Authorization": _basic("u", "p")}
    assert http.requests == []


def test_bearer_is_preferred_to_basic() -> None:
    authentication = _authentication(Credentials(username="u", password="p"), _http())
    authentication.answer(f"{BASIC}, {BEARER}")
    assert authentication.headers == {"Authorization": "Bearer abc"}


def test_credentials_of_the_source_have_precedence_over_the_docker_config() -> None:
    config = _docker_config(username="other", password="p").docker_config
    authentication = _authentication(Credentials(username="u", password="p", docker_config=config), _http())
    authentication.answer(BASIC)
    assert authentication.headers == {"Authorization": _basic("u", "p")}


@pytest.mark.parametrize("challenge", [BEARER, BASIC, "", 'Bearer realm="Authentication required"'])
@pytest.mark.parametrize("credentials", [Credentials(token="given"), Credentials(host_tokens={REGISTRY: "given"})])
def test_token_of_the_source_is_sent_as_it_is(credentials: Credentials, challenge: str) -> None:
    http = _http()
    authentication = _authentication(credentials, http)
    authentication.answer(challenge)
    assert authentication.headers == {"Authorization": "Bearer given"}
    assert http.requests == []


def test_token_of_another_host_is_not_sent() -> None:
    authentication = _authentication(Credentials(host_tokens={"other.example": "given"}), _http())
    authentication.answer(BEARER)
    assert authentication.headers == {"Authorization": "Bearer abc"}


def test_refresh_token_is_exchanged_by_a_form() -> None:
    http = _http(lambda request: response(200, request.url, {"access_token": "fresh"}))
    authentication = _authentication(_docker_config(identitytoken="refresh"), http)
    authentication.answer(BEARER)
    assert authentication.headers == {"Authorization": "Bearer fresh"}
    request = http.requests[0]
    assert (request.method, request.url) == ("POST", REALM)
    assert dict(parse_qsl((request.body or b"").decode())) == {
        "grant_type": "refresh_token",
        "service": "registry.example",
        "client_id": "corral",
        "scope": "repository:team/model:pull",
        "refresh_token": "refresh",
    }


def _openssh() -> tuple[Ed25519PrivateKey, str]:
    key = Ed25519PrivateKey.generate()
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


OLLAMA = f'Bearer realm="https://{REGISTRY}/v2/token",service="ollama",scope="repository:me/model:pull"'


def test_ollama_key_signs_the_token_request() -> None:
    key, text = _openssh()
    http = _http()
    _authentication(Credentials(ollama_key=text), http, ollama=True).answer(OLLAMA)
    request = http.requests[0]
    public, _, signature = request.headers["Authorization"].partition(":")
    assert public.encode() == key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    empty = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
    key.public_key().verify(base64.b64decode(signature), f"GET,{request.url},{empty}".encode())
    query = parse_qsl(urlsplit(request.url).query)
    assert [name for name, _ in query] == ["nonce", "scope", "service", "ts"]
    assert len(base64.urlsafe_b64decode(dict(query)["nonce"] + "==")) == 16


def test_ollama_key_is_not_used_for_other_registries() -> None:
    http = _http()
    _authentication(Credentials(ollama_key=_openssh()[1]), http).answer(BEARER)
    assert "Authorization" not in http.requests[0].headers


@pytest.mark.parametrize(
    "key",
    [
        "not a key",
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
    ],
    ids=["text", "ecdsa"],
)
def test_invalid_ollama_key_is_an_error_without_its_content(key: str) -> None:
    with pytest.raises(SourceError, match="id_ed25519") as error:
        _authentication(Credentials(ollama_key=key), _http(), ollama=True).answer(OLLAMA)
    assert key not in str(error.value)


def test_ollama_demands_a_token_server_on_the_registrys_host() -> None:
    http = _http()
    with pytest.raises(SourceError, match=r"another host, auth\.example"):
        _authentication(Credentials(ollama_key=_openssh()[1]), http, ollama=True).answer(BEARER)
    assert http.requests == []


def test_token_server_without_tls_is_refused_unless_it_is_a_plain_http_host() -> None:
    challenge = 'Bearer realm="http://127.0.0.1:5001/token"'
    http = _http()
    credentials = Credentials(username="u", password="p")
    with pytest.raises(SourceError, match="without TLS"):
        _authentication(credentials, http).answer(challenge)
    assert http.requests == []
    for plain in ("127.0.0.1:5001", "127.0.0.1"):
        _authentication(credentials, http, plain=(plain,)).answer(challenge)
    assert len(http.requests) == 2


@pytest.mark.parametrize(
    "realm",
    [
        "",
        "file:///etc/passwd",
        "https://user@auth.example/",
        "https://auth.example\\@other.example/",
        "https://",
        "//auth.example/",
        "https://auth.example/ x",
        "https://auth.example/\r\nHost: x",
        f"https://auth.example/{'x' * 3000}",
    ],
)
def test_invalid_realm_is_refused(realm: str) -> None:
    http = _http()
    with pytest.raises(SourceError, match=r"no valid URL"):
        _authentication(Credentials(username="u", password="p"), http).answer(f'Bearer realm="{realm}"')
    assert http.requests == []


@pytest.mark.parametrize("data", [{}, {"token": ""}, {"token": 5}, [], {"token": "a\r\nb"}, {"token": "x" * 70_000}])
def test_invalid_token_is_refused(data: object) -> None:
    http = _http(lambda request: response(200, request.url, data))
    with pytest.raises(SourceError, match="token for the registry is not valid"):
        _authentication(NO_CREDENTIALS, http).answer(BEARER)


@pytest.mark.parametrize("challenge", ["", "Negotiate", BASIC, 'Bearer realm="Authentication required"'])
def test_missing_credentials_are_explained(challenge: str) -> None:
    with pytest.raises(
        SourceError, match=r"registry registry\.example requires authentication.*: .* needs credentials"
    ):
        _authentication(NO_CREDENTIALS, _http()).answer(challenge)


def test_refused_credentials_are_explained_and_not_shown() -> None:
    http = _http(lambda request: response(401, request.url, {"details": "incorrect username or password"}))
    with pytest.raises(SourceError, match="check that the credentials are valid") as error:
        _authentication(Credentials(username="person", password="hidden"), http).answer(BEARER)
    assert "hidden" not in str(error.value)
    assert "person" not in str(error.value)


def test_other_status_of_the_token_server_is_an_error() -> None:
    http = _http(lambda request: response(404, request.url, {}))
    with pytest.raises(SourceError, match="status 404"):
        _authentication(NO_CREDENTIALS, http).answer(BEARER)


@pytest.mark.parametrize("token", ["", "refresh"])
def test_a_public_registry_cannot_name_a_token_server_at_a_private_address(token: str) -> None:
    http = HttpClient(NetworkSettings(), resolve=lambda host, port: ["10.0.0.7"])
    login = _docker_config(identitytoken=token) if token else Credentials(username="u", password="p")
    authentication = Authentication(http, login, Repository(REGISTRY, "team/model"))
    with pytest.raises(SourceError, match=r"auth\.example \(10\.0\.0\.7\), or a token server there, is refused"):
        authentication.answer(BEARER)
