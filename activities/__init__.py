"""One module per outside world, dependencies injected."""
