"""Errors of the engine and of its llama.cpp adapter.

EngineError
├── PromptTooLong     the prompt exceeds the context and context shift is off (client error)
├── InvalidPrompt     a token is not in the vocabulary (client error)
├── InvalidGrammar    the grammar does not compile, or allows no token (client error)
├── EngineFailed      decoding failed; the next request works
└── LoadFailed        the weights cannot be loaded; the text names the file
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of the errors above."""


class PromptTooLong(EngineError):
    pass


class InvalidPrompt(EngineError):
    pass


class InvalidGrammar(EngineError):
    pass


class EngineFailed(EngineError):
    pass


class LoadFailed(EngineError):
    pass
