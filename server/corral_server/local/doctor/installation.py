"""Checks of the installation: Python, the packages of the extra ``serve``, and the settings."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from corral_core.base.errors import InvalidSetting
from corral_server.local.config import LocalConfig
from corral_server.local.doctor.finding import Finding, fail, ok

EXTRA: Final = "serve"
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9._-]+)(?:\[([\w,\s-]*)\])?[^;]*;?(.*)")
_OF_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([\w-]+)['\"]")


def check_python() -> Finding:
    return ok("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_packages(
    installed: Callable[[str], str] = version, own: Callable[[str], list[str] | None] = requires
) -> Finding:
    """Report which packages of the extra are not installed."""
    try:
        number, requirements = installed("corral"), own("corral") or []
    except PackageNotFoundError:
        return fail("packages", "corral is not installed as a package", "pipx install 'corral[serve]'")
    missing = [name for name in sorted(set(packages_of(EXTRA, requirements))) if not _is_installed(name, installed)]
    if missing:
        advice = "install corral with its extra: pipx install --force 'corral[serve]'"
        return fail("packages", f"corral {number} lacks {', '.join(missing)}", advice)
    return ok("packages", f"corral {number} with all of corral[{EXTRA}]")


def packages_of(extra: str, requirements: Iterable[str]) -> Iterator[str]:
    """Yield the names of the distributions that an extra of the package ``corral`` requires, with its other extras."""
    lines = list(requirements)
    for line in lines:
        match = _REQUIREMENT.match(line)
        condition = _OF_EXTRA.search(match[3]) if match else None
        if match is None or condition is None or condition[1] != extra:
            continue
        if match[1] == "corral":
            for other in (match[2] or "").split(","):
                yield from packages_of(other.strip(), lines)
        else:
            yield match[1]


def check_settings(environ: Mapping[str, str]) -> Finding:
    """Report the first environment variable whose value is not allowed."""
    try:
        LocalConfig.from_environment(environ)
    except InvalidSetting as error:
        return fail("settings", str(error), "correct or unset the environment variable (docs/settings.md)")
    names = sorted(name for name in environ if name.startswith(("OLLAMA_", "CORRAL_")))
    return ok("settings", f"set in the environment: {', '.join(names)}" if names else "none; defaults apply")


def _is_installed(name: str, installed: Callable[[str], str]) -> bool:
    try:
        installed(name)
    except PackageNotFoundError:
        return False
    return True
