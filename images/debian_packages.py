"""Records of the Debian packages whose files an image contains, for vulnerability scanners and licences.

Scanners read a package's stanza from ``/var/lib/dpkg/status.d/``, where images without dpkg keep it (the layout of
https://github.com/GoogleContainerTools/distroless), and the distribution from ``/etc/os-release``. Debian requires that
a package's copyright file goes with its files (Debian Policy 12.5).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_STATUS = Path("/var/lib/dpkg/status")


def record(files: Iterable[Path], root: Path) -> None:
    """Write the records of the packages that own these files of the build system into the image's root folder."""
    stanzas = _stanzas(_STATUS.read_text())
    for name in sorted(owners(files)):
        target = root / "var/lib/dpkg/status.d" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(stanzas[name])
        copyright_file = Path("/usr/share/doc") / name / "copyright"
        kept = root / copyright_file.relative_to("/")
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copyright_file, kept)
    release = root / "etc/os-release"
    release.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/etc/os-release", release)


def owners(files: Iterable[Path]) -> set[str]:
    """Return the names of the packages that own the files, without the architecture.

    dpkg knows a file by the path in its package, which may be below /lib where /lib is a link to /usr/lib. Files that
    no package owns, such as the byte code of Python modules, are left out.
    """
    paths = {str(file) for file in files}
    paths |= {path.removeprefix("/usr") for path in paths if path.startswith("/usr/lib")}
    paths |= {f"/usr{path}" for path in paths if path.startswith("/lib")}
    found: set[str] = set()
    listed = sorted(paths)
    for start in range(0, len(listed), 1000):
        command = ["dpkg-query", "--search", *listed[start : start + 1000]]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for line in output.splitlines():
            names, separator, _ = line.partition(": /")
            if separator and not line.startswith("diversion"):
                found |= {name.partition(":")[0] for name in names.split(", ")}
    return found


def _stanzas(status: str) -> dict[str, str]:
    stanzas = (stanza.strip() + "\n" for stanza in re.split(r"\n\s*\n", status) if stanza.strip())
    return {match[1]: stanza for stanza in stanzas if (match := re.match(r"Package: (\S+)", stanza))}
