"""One module per outside world, dependencies injected; `errors` says what Temporal is told when something fails."""
