"""Entry point of ``python -m corral_server.pull.pod.inspect``: resolves remote sources and reads the GGUF header.

The result is the process's termination message, which the pod's status keeps until the operator has read it: metadata,
pins and size (``corral_core.contracts.termination_message``). Nothing is downloaded but manifests and the header. An
error ends the process with exit code 1; the kubelet restarts it with growing pauses, so a transient one heals.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_core.base import json_log
from corral_core.base.errors import CorralError, GGUFError, InvalidSetting, SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.model_variable import model_text
from corral_core.contracts.packed_defaults import with_source_defaults
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.contracts.termination_message import InspectionReport, encode_metadata
from corral_core.model.model import ModelSpec
from corral_core.model.remote_sources import remote_sources
from corral_core.model.resource import parse_runner_model
from corral_core.sources.locate import WeightsRoots, locate_adapter, locate_projector, locate_weights
from corral_core.sources.snapshot import FileRole
from corral_core.sources.uri import is_remote, parse_source, shown_uri
from corral_core.weights.files import with_spec
from corral_core.weights.gguf_metadata import read_metadata, with_projector
from corral_core.weights.projector import ProjectorMetadata, read_projector
from corral_server.pull.pod.puller import pod_puller
from corral_server.pull.pod.task import exit_with, known_pins, log_event, write_termination_message
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import ResolvedSource
from corral_server.pull.remote_metadata import translation_size
from corral_server.system.compute_buffers import plan_compute_buffers


def main() -> None:
    json_log.configure_logging()
    try:
        spec = _spec(os.environ)
        roots = WeightsRoots(claim=Path(os.environ.get("CORRAL_PVC_ROOT") or "/weights"))
        report = inspect(spec, known_pins(os.environ), pod_puller(os.environ, store=None), roots=roots)
        message = encode_metadata(report.metadata, report.resolved)
    except (CorralError, OSError, ValueError) as error:
        exit_with(" ".join(f"{error}".split())[:2000] or type(error).__name__)
    else:
        log_event("inspected", source=shown_uri(spec.source), size=report.metadata.size, family=report.metadata.family)
        write_termination_message(message)


def inspect(spec: ModelSpec, pins: Mapping[str, str], puller: Puller, *, roots: WeightsRoots) -> InspectionReport:
    """Resolve the remote sources, those in ``pins`` at their pin, and read the metadata of the weights.

    The metadata has what the source brings besides weights; the total size includes the room for archives, and for
    weights that are translated after the pull, which cannot be mounted. Raises SourceError, PullError, GGUFError and
    OSError.
    """
    resolved = {uri: puller.resolve(uri, pins.get(uri, "")) for uri in remote_sources(spec)}
    files = _Files(puller, resolved, roots)
    adapters = sum(files.adapter_size(one.source) for one in spec.adapters)
    found = files.metadata(spec.source)
    projector = files.projector(spec)
    metadata = with_spec(with_projector(found, projector) if projector is not None else found, spec, adapters)
    known = all(one.size is not None for one in resolved.values())
    total = sum(one.room for one in resolved.values()) if known else 0
    image_path = ""
    if spec.source in resolved:
        metadata = with_source_defaults(metadata, resolved[spec.source].defaults)
        translated = translation_size(resolved[spec.source], found)
        total += translated if total else 0
        image_path = "" if translated else resolved[spec.source].image_path
    found_pins = tuple(one.pin for one in resolved.values())
    return InspectionReport(metadata, ResolvedPins(found_pins, total, image_path))


@dataclass(frozen=True, slots=True)
class _Files:
    """Facts of files, remote or on this machine."""

    puller: Puller
    resolved: Mapping[str, ResolvedSource]
    roots: WeightsRoots

    def metadata(self, uri: str) -> ModelMetadata:
        source = parse_source(uri)
        if not is_remote(source):
            return read_metadata(locate_weights(source, self.roots), plan_compute_buffers)
        found = self.puller.inspect(self.resolved[uri], plan_compute_buffers)
        if found is None:
            raise SourceError(
                f"source {shown_uri(uri)!r}: the header of its weights cannot be read before they are pulled: they are "
                "behind other files in a compressed archive, or the server does not say their size. Push them as a "
                "plain file, or in an archive that is not compressed"
            )
        return found

    def projector(self, spec: ModelSpec) -> ProjectorMetadata | None:
        """Return the projector of the spec, else the one that the source brings, else None (``find_projector``)."""
        if spec.projector is not None and not is_remote(parse_source(spec.projector)):
            return read_projector(locate_projector(parse_source(spec.projector), self.roots))
        uri = spec.projector or spec.source
        roles = (FileRole.PROJECTOR,) if spec.projector is None else (FileRole.PROJECTOR, FileRole.WEIGHTS)
        if uri not in self.resolved or not any(file.role in roles for file in self.resolved[uri].files):
            return None
        try:
            found = self.puller.inspect_projector(self.resolved[uri], roles)
        except GGUFError:
            if spec.projector is not None:
                raise
            return None
        if found is None:
            raise SourceError(
                f"source {shown_uri(uri)!r}: the header of its projector cannot be read before it is pulled; name the "
                "projector as a plain file in spec.projector"
            )
        return found

    def adapter_size(self, uri: str) -> int:
        source = parse_source(uri)
        if not is_remote(source):
            return locate_adapter(source, self.roots).stat().st_size
        return self.resolved[uri].size or 0


def _spec(environ: Mapping[str, str]) -> ModelSpec:
    try:
        document = json.loads(model_text(environ))
    except (ValueError, RecursionError) as error:
        raise InvalidSetting(f"CORRAL_MODEL is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidSetting("CORRAL_MODEL must be an object with name, namespace and spec")
    return parse_runner_model(document).spec


if __name__ == "__main__":
    main()
