"""`sluice`: a client of the API, and the partner's and approver's tools."""
