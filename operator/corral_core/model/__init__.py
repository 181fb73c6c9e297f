"""The Model resource: fields, documents, validation problems and name ownership."""
