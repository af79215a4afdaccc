"""The conformance kit that ships with the package."""
