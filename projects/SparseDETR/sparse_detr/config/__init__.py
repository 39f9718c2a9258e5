"""Finding, reading and overriding configs."""
