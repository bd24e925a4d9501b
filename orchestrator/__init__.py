"""The service: rules, records, trust, the way in."""
