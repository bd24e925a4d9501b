"""FastAPI: thin routers over commands and read models."""
