"""Addresses of the hubs, which a mirror or a caching proxy in a company's network may replace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from corral_core.base.errors import InvalidSetting
from corral_core.base.settings import str_setting

HUGGING_FACE: Final = "hf"
MODELSCOPE: Final = "modelscope"
DEFAULT_ENDPOINTS: Final[Mapping[str, str]] = {
    HUGGING_FACE: "https://huggingface.co",
    MODELSCOPE: "https://modelscope.cn",
}
SETTINGS: Final[Mapping[str, str]] = {HUGGING_FACE: "HF_ENDPOINT", MODELSCOPE: "MODELSCOPE_ENDPOINT"}
"""Setting of each hub's address, named as in the hub's own library."""

_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?")


def hub_endpoints(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the address of each hub, ``HF_ENDPOINT`` and ``MODELSCOPE_ENDPOINT`` or the public ones.

    An address may have a path, as that of a caching repository manager has. Raises InvalidSetting.
    """
    return {hub: _endpoint(environ, hub) for hub in DEFAULT_ENDPOINTS}


def _endpoint(environ: Mapping[str, str], hub: str) -> str:
    value = str_setting(environ, SETTINGS[hub], default=DEFAULT_ENDPOINTS[hub]).rstrip("/")
    if "@" in value:
        text = "it must not contain credentials; put them into the Secret of the source"
        raise InvalidSetting(f"{SETTINGS[hub]} is not allowed: {text}")
    if not _URL.fullmatch(value):
        text = f"it must be a URL such as {DEFAULT_ENDPOINTS[hub]}, without a query"
        raise InvalidSetting(f"{SETTINGS[hub]}={value!r} is not allowed: {text}")
    return value
