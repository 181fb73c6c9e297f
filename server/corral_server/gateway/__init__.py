"""Gateway: admits, queues and routes requests to runners."""
