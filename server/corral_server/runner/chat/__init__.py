"""A chat request independent of its API: checks, tools, prompt, and parsing of the output."""
