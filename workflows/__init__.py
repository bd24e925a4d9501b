"""The durable order of things. Workflows decide by calling the domain; they do no IO."""
