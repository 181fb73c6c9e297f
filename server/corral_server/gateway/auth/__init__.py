"""API keys: key file, authentication, authorization of models, rate limits.

Disabled unless a key file is configured.
"""
