"""AMQP semantics, written once for every store."""
