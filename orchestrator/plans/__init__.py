"""Plans as people write them: YAML and JSON with line numbers, the JSON Schema, the templates."""
