"""The OpenAPI document of the REST paths, made from the contracts; the result is checked in as `openapi.json`."""
