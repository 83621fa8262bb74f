"""What the front door needs beside Envoy: readiness, reflection for the whole mesh, the OpenAPI document."""
