"""The puller of a pod: settings from its environment, credentials from a mounted Secret, a store on a mounted claim.

Without a Secret for its source a pod has the installation's credentials: a Secret for the host of the source, whose
folder is empty if the namespace does not have it, else environment variables (``CORRAL_PULLER_ENV``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from corral_core.base.settings import int_setting, str_setting
from corral_server.pull.credentials import Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import download_options
from corral_server.pull.http.settings import network_settings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.puller import Puller
from corral_server.pull.resolvers.hubs.endpoints import hub_endpoints
from corral_server.pull.store import WeightsStore


def pod_puller(environ: Mapping[str, str], *, store: Path | None) -> Puller:
    """Return the puller. Without a store it resolves and inspects. Raises InvalidSetting and SourceError."""
    credentials = pod_credentials(environ)
    transports = NetworkTransports(network_settings(environ), credentials, endpoints=hub_endpoints(environ))
    limit = int_setting(environ, "CORRAL_STORE_LIMIT", default=0, minimum=0)
    weights = WeightsStore(store or Path(tempfile.gettempdir(), "store"), size_limit=limit or None)
    return Puller(weights, transports, Downloader(weights, transports, options=download_options(environ)))


def pod_credentials(environ: Mapping[str, str]) -> Credentials:
    """Return the credentials of the pod. Raises SourceError for a Secret that cannot be used."""
    own, default = str_setting(environ, "CORRAL_SOURCE_SECRET"), str_setting(environ, "CORRAL_DEFAULT_SECRET")
    if own:
        return Credentials.from_folder(Path(own))
    exists = bool(default) and any(path.is_file() for path in Path(default).iterdir())
    return Credentials.from_folder(Path(default)) if exists else Credentials.from_environment(environ)
