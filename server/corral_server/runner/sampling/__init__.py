"""Token sampling, constrained decoding, log probabilities and detokenized text."""
