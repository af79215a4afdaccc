"""The bundled transports, loaded by name."""
