"""The subset of Go's text/template that Ollama's templates use. Reference: https://pkg.go.dev/text/template"""
