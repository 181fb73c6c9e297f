"""Create the project's virtual environment with uv in it, or report what this machine lacks for it.

uv installs the packages: it takes a tenth of pip's time when the user's cache has them. pip is installed as well,
because llama_wheel.py builds with it. This script runs with the machine's ``python3``, which may be too old. It must
therefore run on Python 3.6, to report that.
"""

import importlib.util
import subprocess
import sys

NEEDED = (3, 11)
UV = "uv>=0.13.9"


def problem():
    # type: () -> str
    """Return what prevents the creation, with a remedy; empty if nothing does."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < NEEDED:
        return (
            f"Corral needs Python 3.11 or newer, and {sys.executable} is {found}.\n"
            "Install it and set PYTHON: make PYTHON=python3.12 ..."
        )
    lacking = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if lacking:
        return (
            f"{sys.executable} (Python {found}) lacks the module {' and '.join(lacking)}, "
            "so it cannot create a virtual environment.\n"
            "On Debian or Ubuntu: apt-get install python3-venv. Or use another Python: make PYTHON=... ..."
        )
    return ""


def pip_for_others():
    # type: () -> bool
    """Return whether this Python has a pip that installs into other environments (option --python, from pip 22.3)."""
    if importlib.util.find_spec("pip") is None:
        return False
    import pip

    return [int(part) for part in pip.__version__.split(".")[:2]] >= [22, 3]


def main():
    # type: () -> int
    text = problem()
    if text:
        sys.stderr.write(text + "\n")
        return 1
    environment = sys.argv[1]
    shared = pip_for_others()  # saves the five seconds in which venv installs a pip
    created = subprocess.call([sys.executable, "-m", "venv", *(["--without-pip"] if shared else []), environment])
    if created != 0:
        return created
    python = environment + "/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python] if shared else [python, "-m", "pip"]
    if subprocess.call([*pip, "--disable-pip-version-check", "install", "--quiet", "--no-compile", UV]) != 0:
        return 1
    return subprocess.call([environment + "/bin/uv", "pip", "install", "--quiet", "--python", python, "pip"])


if __name__ == "__main__":
    sys.exit(main())
