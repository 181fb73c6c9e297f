"""``corral validate``: check Model files for errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corral_core.base.errors import InvalidModel
from corral_core.model.name_index import lost_names
from corral_core.model.resource import load_models
from corral_server.local.files import model_files


def validate(paths: Sequence[Path]) -> int:
    """Print the errors of each file; return 0 if there are none."""
    problems = 0
    models = []
    files = model_files(paths)
    if not files:
        print("no Model file found; name a YAML file or a folder with YAML files")
        return 1
    for path in files:
        try:
            found = load_models(path.read_text("utf-8"))
        except (InvalidModel, OSError, UnicodeDecodeError) as error:
            print(f"{path}: {error}")
            problems += 1
            continue
        if not found:
            print(f"{path}: the file has no Model")
            problems += 1
            continue
        models += found
        print(f"{path}: {', '.join(model.key for model in found)}: valid")
    for key, reason in lost_names(models).items():
        print(f"{key}: {reason}")
        problems += 1
    return 1 if problems else 0
