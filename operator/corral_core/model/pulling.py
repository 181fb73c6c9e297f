"""Fields of a Model that say how its weights are pulled and where they stay: ``spec.cache`` and ``spec.proxy``.

They matter for remote sources alone (``corral_core.sources.forms``), and reach the puller, never a runner.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from corral_core.model.declared_fields import declared_fields
from corral_core.model.pod import Quantity, Subdomain, validation_error

CLAIM, SHARED, EPHEMERAL, IMAGE = "claim", "shared", "ephemeral", "image"
"""Values of ``cache.type``."""

_PROXY_URL = "a proxy like http://proxy.example:3128, without user and password, which belong in httpsProxySecretRef"
_UNSET = {
    CLAIM: ("claim_name",),
    SHARED: ("size", "storage_class_name", "access_modes", "retain"),
    EPHEMERAL: ("storage_class_name", "access_modes", "claim_name", "retain"),
    IMAGE: ("claim_name",),
}
"""Fields that do not apply to a type."""


def check_proxy(url: str) -> str:
    """Return the URL of a proxy. Raises pydantic's error if it is not one, or has a user or a password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        valid = valid and parts.path in ("", "/") and not parts.query and not parts.fragment and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or not url.isascii() or not url.isprintable() or " " in url:
        raise validation_error(_PROXY_URL)
    return url


@declared_fields
class SecretKey(TypedDict):
    name: Subdomain
    key: Annotated[str, Field(min_length=1, max_length=253)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)


class CacheSpec(_FrozenModel):
    """Where the pulled weights stay. ``size`` is that of the Model's own volume; of the others, ``claim_name`` is for
    type shared and the rest for type claim. With type image, runners mount the image where the nodes can do that;
    otherwise it is pulled as with type claim.
    """

    type: Literal["claim", "shared", "ephemeral", "image"] = "claim"
    size: Quantity | None = None
    storage_class_name: Subdomain | None = None
    access_modes: Annotated[
        tuple[Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"], ...],
        Field(strict=False, min_length=1, max_length=3),
    ] = ("ReadWriteOnce",)
    claim_name: Subdomain | None = None
    retain: bool = False

    @property
    def own_claim(self) -> bool:
        """Whether weights that are pulled stay on a claim of this Model, which the operator creates."""
        return self.type in (CLAIM, IMAGE)

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> Self:
        if self.type == SHARED and self.claim_name is None:
            raise validation_error("the name of a claim, which type shared requires", field="claimName", value=None)
        for name in _UNSET[self.type]:
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                reason = f"must be unset for type {self.type}"
                raise validation_error(reason, field=to_camel(name), value=getattr(self, name))
        return self


class CABundleSpec(_FrozenModel):
    """Certificate authorities in a ConfigMap or a Secret of the Model's namespace."""

    config_map_name: Subdomain | None = None
    secret_name: Subdomain | None = None
    key: Annotated[str, Field(min_length=1, max_length=253)] = "ca.crt"

    @model_validator(mode="after")
    def _one_object(self) -> Self:
        if (self.config_map_name is None) == (self.secret_name is None):
            raise validation_error(
                "either configMapName or secretName", field="configMapName", value=self.config_map_name
            )
        return self


class ProxySpec(_FrozenModel):
    """Proxy of the puller; None: the installation's."""

    https_proxy: Annotated[str, Field(max_length=2048), AfterValidator(check_proxy)] | None = None
    https_proxy_secret_ref: SecretKey | None = None
    no_proxy: Annotated[str, Field(max_length=4096)] | None = None
    ca_bundle: CABundleSpec | None = None

    @model_validator(mode="after")
    def _one_proxy(self) -> Self:
        if self.https_proxy is not None and self.https_proxy_secret_ref is not None:
            raise validation_error("unset beside httpsProxySecretRef", field="httpsProxy", value=self.https_proxy)
        return self
