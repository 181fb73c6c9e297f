"""Makes the project's virtual environment, or says in plain words what the machine lacks for it.

It is run by whatever ``python3`` the machine has, so it must parse and speak on old ones too: no syntax newer than
Python 3.6 here.
"""

import importlib.util
import subprocess
import sys

NEEDED = (3, 11)


def problem():
    # type: () -> str
    """What is in the way, or an empty text."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < NEEDED:
        return (
            f"Corral needs Python 3.11 or newer, and {sys.executable} is {found}.\n"
            "Install one and name it: make PYTHON=python3.12 ..."
        )
    lacking = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if lacking:
        return (
            f"{sys.executable} (Python {found}) comes without its module {' and '.join(lacking)}, "
            "so it cannot make a virtual environment.\n"
            "On Debian or Ubuntu: apt-get install python3-venv. Or name another Python: make PYTHON=... ..."
        )
    return ""


def main():
    # type: () -> int
    text = problem()
    if text:
        sys.stderr.write(text + "\n")
        return 1
    return subprocess.call([sys.executable, "-m", "venv", sys.argv[1]])


if __name__ == "__main__":
    sys.exit(main())
