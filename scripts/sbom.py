"""Software bill of materials of an image in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

The components are the Python distributions (``*.dist-info/METADATA``) and the Debian packages
(``/var/lib/dpkg/status.d/``) in the layers of an OCI archive, each with its package URL
(https://github.com/package-url/purl-spec). It needs only the standard library, as ``scripts/images.py`` does.

usage: sbom.py ARCHIVE
"""

from __future__ import annotations

import email.message
import email.parser
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_METADATA = re.compile(r"opt/corral/lib/python3\.\d+/site-packages/[^/]+\.dist-info/METADATA")
_STATUS = re.compile(r"var/lib/dpkg/status\.d/[^/]+")


def bill_of_materials(archive: Path, name: str) -> dict[str, object]:
    """Return the document for the image ``name`` in an OCI archive. Raises ValueError when it has no component."""
    components = sorted(_components(archive), key=lambda component: str(component["purl"]))
    if not components:
        raise ValueError(f"{archive} contains neither Python distributions nor records of Debian packages")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "bom-ref": name}},
        "components": components,
    }


def _components(archive: Path) -> Iterator[dict[str, object]]:
    for path, text in _records(archive):
        record = email.parser.Parser().parsestr(text, headersonly=True)
        yield _debian_package(record) if path.startswith("var/") else _python_distribution(record)


def _records(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield path and text of the package records in all layers; the images have one layer with files."""
    with tarfile.open(archive) as outer:
        index = _json(outer, "index.json")
        manifest = _json(outer, _blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=outer.extractfile(_blob(layer["digest"]))) as inner:
                for member in inner:
                    path = member.name.removeprefix("./")
                    if member.isfile() and (_METADATA.fullmatch(path) or _STATUS.fullmatch(path)):
                        file = inner.extractfile(member)
                        assert file is not None
                        yield path, file.read().decode("utf-8", "replace")


def _json(archive: tarfile.TarFile, path: str) -> dict[str, list[dict[str, str]]]:
    file = archive.extractfile(path)
    if file is None:
        raise ValueError(f"{path} of the archive is not a file")
    document: dict[str, list[dict[str, str]]] = json.load(file)
    return document


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _python_distribution(record: email.message.Message) -> dict[str, object]:
    name, version = str(record["Name"]), str(record["Version"])
    normalized = re.sub(r"[-_.]+", "-", name).lower()
    component = _component(name, version, f"pkg:pypi/{normalized}@{quote(version)}")
    expression = record["License-Expression"]
    if expression:
        component["licenses"] = [{"expression": str(expression)}]
    elif record["License"]:
        component["licenses"] = [{"license": {"name": str(record["License"]).splitlines()[0][:200]}}]
    return component


def _debian_package(record: email.message.Message) -> dict[str, object]:
    name, version, architecture = (str(record[field]) for field in ("Package", "Version", "Architecture"))
    return _component(name, version, f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}")


def _component(name: str, version: str, purl: str) -> dict[str, object]:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def main() -> None:
    archive = Path(sys.argv[1])
    print(json.dumps(bill_of_materials(archive, archive.stem), indent=1))


if __name__ == "__main__":
    main()
