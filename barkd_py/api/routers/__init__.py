"""The operations of the REST API, one module per tag of the OpenAPI description."""
