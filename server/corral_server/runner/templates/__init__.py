"""Chat templates in a sandbox: Jinja and Go text/template."""
