"""One module per contestant; raw drivers have one per broker behind `raw`."""
