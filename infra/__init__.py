"""How it runs: settings, composition roots, the one-machine stack. Imports everything; nobody imports it."""
