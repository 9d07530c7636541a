"""Plain immutable data: names, handles, specs, errors and the objects users see. Imports nothing above it."""
