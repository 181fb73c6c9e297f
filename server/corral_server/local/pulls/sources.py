"""The puller of local mode: the user's store, network and credentials, and Ollama's models directory."""

from __future__ import annotations

import threading

from corral_core.base.errors import SourceError
from corral_core.sources.forms import OllamaSource, Source
from corral_core.sources.snapshot import Snapshot, snapshot_folder
from corral_server.local.pulls.config import PullConfig
from corral_server.local.pulls.ollama_folder import OllamaFolder
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import download_options
from corral_server.pull.http.settings import network_settings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import ByteStream, Location, ResolvedSource
from corral_server.pull.resolvers.hubs.endpoints import hub_endpoints
from corral_server.pull.resolvers.ollama import OllamaResolver
from corral_server.pull.store import WeightsStore
from corral_server.pull.transports import Transports


class LocalSources:
    """Makes pullers for one store. The constructor raises InvalidSetting.

    Variables of the network are those of other programs too. They are read when something is pulled: one that is not
    valid stops no Model whose weights are there.
    """

    def __init__(self, config: PullConfig) -> None:
        self._config = config
        self._options = download_options(config.environment)
        self.store = WeightsStore(config.store, also_read=config.also_read)

    def store_has(self, snapshot: Snapshot) -> bool:
        """Return whether the store has all files of a snapshot."""
        folder = snapshot_folder(self.store.root, snapshot.id)
        files = snapshot.files
        return folder.is_dir() and all(self.store.blob(file.sha256, size=file.size) for file in files)

    def puller(self, cancel: threading.Event) -> Puller:
        """Return a puller whose downloads end soon after ``cancel`` is set. Raises InvalidSetting and SourceError."""
        environ = self._config.environment
        network = NetworkTransports(
            network_settings(environ), Credentials.from_environment(environ), endpoints=hub_endpoints(environ)
        )
        transports = network if self._config.ollama is None else _WithOllamaFolder(network, self._config)
        downloader = Downloader(self.store, transports, options=self._options, cancel=cancel)
        return Puller(self.store, transports, downloader)


class _WithOllamaFolder:
    """``Transports`` that look into Ollama's models directory first: what is there needs no network."""

    def __init__(self, network: Transports, config: PullConfig) -> None:
        assert config.ollama is not None
        self._network = network
        self._resolver = OllamaResolver(OllamaFolder(config.ollama), NO_CREDENTIALS)

    def resolve(self, source: Source, *, pin: str = "") -> ResolvedSource:
        if isinstance(source, OllamaSource):
            try:
                return self._resolver.resolve(source, pin=pin)
            except SourceError:  # it is not there, or not in this version
                pass
        return self._network.resolve(source, pin=pin)

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        return self._network.open(location, start=start, end=end)
