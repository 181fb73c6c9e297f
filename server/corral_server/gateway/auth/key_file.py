"""Key file: YAML or JSON, as a Secret contains it.

    keys:
      - name: team-a
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        namespaces: [team-a, base]            # default: all namespaces ("*")
        models: ["llama3*", "smollm2:135m"]   # default: all models
        expires: 2027-01-31T00:00:00Z         # default: never
        requestsPerMinute: 60                 # default: unlimited
        concurrent: 4                         # default: unlimited
        tokensPerMinute: 20000                # default: unlimited
        tokensPerDay: 1000000                 # default: unlimited
        outputTokensPerRequest: 2000          # default: the Model's limit
        secondsPerRequest: 120                # default: the Model's limit
        createModels: false                   # default: as CORRAL_MODELS_CREATE says

The file contains only the SHA-256 of each key (``corral_core.contracts.api_keys``).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import yaml

from corral_core.base.errors import CorralError
from corral_core.contracts.api_keys import KEY_NAME
from corral_core.model.name_index import EVERYWHERE, Scope
from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits

_FIELDS = (
    "name",
    "sha256",
    "namespaces",
    "models",
    "expires",
    "requestsPerMinute",
    "concurrent",
    "tokensPerMinute",
    "tokensPerDay",
    "outputTokensPerRequest",
    "secondsPerRequest",
    "createModels",
)
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 8
_MAX_ITEMS = 64
"""Names of models, and of namespaces, of one key: each is compared in each request."""
_MAX_PATTERN = 200
_FIRST_YEAR = 2000
_MAX_REQUESTS = 10**6
_MAX_TOKENS = 10**12
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|\*")


class InvalidKeyFile(CorralError):
    """The key file is invalid."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``digest`` is the SHA-256 of the key; ``models`` are glob patterns; a limit of None means unlimited.

    ``expires`` is in Unix seconds, None for never. Tokens are those of prompts and responses. The runner enforces
    ``request_limits`` on each request.
    ``namespaces`` are those that the key sees, ``*`` for all; its plain names are looked up in them, in this order.
    ``create_models``: the key may create, change and delete Models if the installation allows it. ``in_secret``: it is
    in a Secret of a namespace, not in the key file.
    """

    name: str
    digest: bytes
    models: tuple[str, ...] = ("*",)
    namespaces: Scope = EVERYWHERE
    requests_per_minute: int | None = None
    concurrent: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    expires: float | None = None
    request_limits: RequestLimits = NO_REQUEST_LIMITS
    create_models: bool = True
    in_secret: bool = False
    _matchers: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        matchers = tuple(re.compile(fnmatch.translate(pattern)) for pattern in self.models)
        object.__setattr__(self, "_matchers", matchers)

    @property
    def limited(self) -> bool:
        """Whether the key has a limit, so that its usage is reported to the peers."""
        limits = (self.requests_per_minute, self.concurrent, self.tokens_per_minute, self.tokens_per_day)
        return any(limit is not None for limit in limits)

    @property
    def namespace(self) -> str:
        """The namespace that its requests count for in the queue: the first one, empty if the key is for all."""
        return "" if self.namespaces[0] == "*" else self.namespaces[0]

    def allows(self, name: str) -> bool:
        """Return whether a pattern of the key matches a canonical name, with its tag or without ``latest``."""
        short = name.removesuffix(":latest")
        return short in self.models or any(matches.match(name) is not None for matches in self._matchers)


def parse_keys(text: str, *, namespace: str = "") -> tuple[ApiKey, ...]:
    """Parse a key file, or with ``namespace`` an item of the Secret of that namespace.

    The keys of a namespace see no other one, and their names begin with it. Raises InvalidKeyFile, which names the
    entry and never contains a value: it may be a key by mistake.
    """
    try:
        if namespace:
            _check_structure(text)
        document = yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InvalidKeyFile(f"the file is not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    except (ValueError, RecursionError):  # of a number or a time, or nested too deeply
        raise InvalidKeyFile("the file has a number, a time or a structure that cannot be read") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeyFile("the file must have a list 'keys'")
    keys = tuple(_key(number, entry) for number, entry in enumerate(entries, 1))
    if namespace:
        keys = tuple(_key_of_namespace(key, namespace) for key in keys)
    for what, values in (("name", [key.name for key in keys]), ("sha256", [key.digest for key in keys])):
        if len(set(values)) < len(values):
            raise InvalidKeyFile(f"two keys have the same {what}")
    return keys


def _check_structure(text: str) -> None:
    """Raise InvalidKeyFile for YAML whose construction takes much more than its text: aliases and deep nesting."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            raise InvalidKeyFile(f"the file has an alias, or more than {_MAX_DEPTH} levels")


def _key_of_namespace(key: ApiKey, namespace: str) -> ApiKey:
    if key.namespaces is not EVERYWHERE and key.namespaces != (namespace,):
        raise InvalidKeyFile(
            f"key {key.name}: namespaces must be absent or [{namespace}]: the keys of a namespace see no other one"
        )
    return replace(key, name=f"{namespace}/{key.name}", namespaces=(namespace,), in_secret=True)


def _key(number: int, entry: object) -> ApiKey:
    if not isinstance(entry, dict):
        raise InvalidKeyFile(f"key {number} must be an object")
    unknown = [str(name) for name in entry if name not in _FIELDS]
    if unknown:
        raise InvalidKeyFile(f"key {number} has an unknown field; allowed are {', '.join(_FIELDS)}")
    name, digest = entry.get("name"), entry.get("sha256")
    if not isinstance(name, str) or not KEY_NAME.fullmatch(name):
        raise InvalidKeyFile(f"key {number}: name must be 1 to 63 letters, digits, '.', '_' or '-'")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidKeyFile(
            f"key {name}: sha256 must be the 64 hexadecimal digits that 'corral key' prints, in quotes"
        )
    return ApiKey(
        name,
        bytes.fromhex(digest),
        _patterns(name, entry.get("models")),
        _namespaces(name, entry.get("namespaces")),
        _limit(entry, "requestsPerMinute", name),
        _limit(entry, "concurrent", name),
        _limit(entry, "tokensPerMinute", name, maximum=_MAX_TOKENS),
        _limit(entry, "tokensPerDay", name, maximum=_MAX_TOKENS),
        _expiry(name, entry.get("expires")),
        RequestLimits(
            _limit(entry, "outputTokensPerRequest", name, maximum=_MAX_TOKENS) or 0,
            _limit(entry, "secondsPerRequest", name) or 0,
        ),
        _create_models(entry, name),
    )


def _create_models(entry: Mapping[object, object], name: str) -> bool:
    value = entry.get("createModels", True)
    if not isinstance(value, bool):
        raise InvalidKeyFile(f"key {name}: createModels must be true or false")
    return value


def _patterns(name: str, models: object) -> tuple[str, ...]:
    if models is None:
        return ("*",)
    if isinstance(models, list) and len(models) <= _MAX_ITEMS:
        patterns = [item.lower() for item in models if isinstance(item, str) and 0 < len(item) <= _MAX_PATTERN]
        if len(patterns) == len(models):
            return tuple(patterns)
    raise InvalidKeyFile(
        f"key {name}: models must be a list of names, in which * matches any text: at most {_MAX_ITEMS} of at most "
        f"{_MAX_PATTERN} characters"
    )


def _namespaces(name: str, namespaces: object) -> Scope:
    if namespaces is None:
        return EVERYWHERE
    if isinstance(namespaces, list) and 0 < len(namespaces) <= _MAX_ITEMS:
        listed = [item for item in namespaces if isinstance(item, str) and _NAMESPACE.fullmatch(item)]
        if len(listed) == len(namespaces):
            return tuple(listed)
    raise InvalidKeyFile(f"key {name}: namespaces must be a list of names of namespaces; * alone stands for all others")


def _limit(entry: Mapping[object, object], limit: str, name: str, *, maximum: int = _MAX_REQUESTS) -> int | None:
    value = entry.get(limit)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise InvalidKeyFile(f"key {name}: {limit} must be a whole number from 1 to {maximum}")
    return value


def _expiry(name: str, value: object) -> float | None:
    """Return Unix seconds. YAML parses a time without quotes, JSON has it as a string."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.tzinfo is not None and moment.year >= _FIRST_YEAR:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise InvalidKeyFile(f"key {name}: expires must be a time with its zone, such as 2027-01-31T00:00:00Z")
