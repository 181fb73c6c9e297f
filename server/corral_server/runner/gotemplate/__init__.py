"""Go's text/template, as far as Ollama's templates use it: from source to tree to prompt, without running any Go."""
