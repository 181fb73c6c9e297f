"""API keys: who may call the gateway, which models each may use, and how often. Off unless a file of keys is named."""
