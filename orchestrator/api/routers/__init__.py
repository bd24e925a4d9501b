"""One module per resource: thin routes over commands and read models."""
