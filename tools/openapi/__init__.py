"""Makes the OpenAPI 3.1 description of the edge from the protos."""
