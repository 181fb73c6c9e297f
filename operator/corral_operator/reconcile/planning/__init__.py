"""The plan of all Models: its input, its making and recording, and the load configs of runners."""
