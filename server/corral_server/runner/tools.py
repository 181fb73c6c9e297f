"""Tools as a request describes them."""

from __future__ import annotations

from collections.abc import Mapping

Tool = Mapping[str, object]
"""``{"type": "function", "function": {"name", "description", "parameters"}}``, as chat templates take it."""
