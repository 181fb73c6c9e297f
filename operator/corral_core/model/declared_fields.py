"""Decorator of the typed dictionaries in a Model: only declared fields are allowed, and no value is converted."""

from __future__ import annotations

from pydantic import with_config

declared_fields = with_config(extra="forbid", strict=True)
