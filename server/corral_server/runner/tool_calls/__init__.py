"""Tool calls and thinking: parsers of a model's output, and the choice of the parser by the model's template."""
