"""OpenAI's chat completions, completions and responses."""
