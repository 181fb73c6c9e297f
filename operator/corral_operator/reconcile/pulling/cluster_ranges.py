"""Address ranges of the cluster, which are reached without a proxy: those of its nodes, pods and Services.

They are read when a pod that reaches sources is created, once a minute at most. An installation that may not read nodes
or ServiceCIDRs has them in its ``noProxy``, if a source is named by an address of the cluster at all.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterator
from typing import Final

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_kube.client import KubeClient
from corral_kube.errors import KubeError
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.objects import trim_node

_MAX_RANGES = 256
"""Ranges after joining adjacent ones; further ones are left out."""


CACHE_SECONDS: Final = 60.0
"""Seconds for which ranges that were read are used."""


class ClusterRanges:
    """The ranges as they were read last, ``CACHE_SECONDS`` ago at most."""

    def __init__(self, kube: KubeClient, *, clock: Callable[[], float] = steady_time) -> None:
        self._kube = kube
        self._clock = clock
        self._known: tuple[str, ...] = ()
        self._until = float("-inf")

    async def get(self) -> tuple[str, ...]:
        """Return the ranges in CIDR form, as far as the operator may read them."""
        if self._clock() >= self._until:
            self._known = await cluster_ranges(self._kube)
            self._until = self._clock() + CACHE_SECONDS
        return self._known


async def cluster_ranges(kube: KubeClient) -> tuple[str, ...]:
    """Return the ranges in CIDR form, as far as the operator may read them."""
    texts: list[str] = []
    for path, ranges_of in ((api_paths.nodes(), _of_node), (api_paths.service_cidrs(), _of_services)):
        try:
            for item in (await kube.list(path, trim=trim_node if ranges_of is _of_node else dict)).items:
                texts += ranges_of(item)
        except KubeError as error:
            logs.event("cluster_ranges_unknown", level=logging.DEBUG, path=path, error=str(error))
    return joined(texts)


def joined(texts: list[str]) -> tuple[str, ...]:
    """Return the ranges without those that others contain, adjacent ones as one; what is not a range is left out."""
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in texts:
        with contextlib.suppress(ValueError):
            networks.append(ipaddress.ip_network(text, strict=False))
    version4 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    version6 = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return tuple(str(one) for one in (*version4, *version6))[:_MAX_RANGES]


def _of_node(node: JsonObject) -> Iterator[str]:
    for address in get_objects(node, "status", "addresses"):
        if get_str(address, "type") in ("InternalIP", "ExternalIP"):
            yield get_str(address, "address")
    yield from _texts(get_object(node, "spec").get("podCIDRs"))


def _of_services(item: JsonObject) -> Iterator[str]:
    yield from _texts(get_object(item, "spec").get("cidrs"))


def _texts(value: object) -> Iterator[str]:
    for text in value if isinstance(value, list) else []:
        if isinstance(text, str):
            yield text
