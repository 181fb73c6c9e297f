"""Canonical name by which the gateway found the Model of a request, as a context variable.

A client's rights are checked by this name, so it and not the name in the body selects the adapter.
"""

from __future__ import annotations

from contextvars import ContextVar

gateway_model_name: ContextVar[str] = ContextVar("gateway_model_name", default="")
"""Empty when no gateway sent the request."""
