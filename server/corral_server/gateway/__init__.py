"""The front door: admits, queues and routes requests to runners."""
