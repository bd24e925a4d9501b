"""Eyes on a running service: Prometheus metrics, OpenTelemetry traces, and log lines that name their trace.

    metrics    the registry of one process, and `/metrics` on its health port
    records    what the records say in numbers (gates, windows, incidents, the log)
    queues     how much work waits in Temporal's task queues
    runtime    the Temporal SDK's own metrics, on a port of their own
    tracing    spans from the API call through workflow and activities to database, store and key service

Invariant: no secret leaves through a metric or a span. Labels are words of the product, never ids, names or addresses
of partners; attributes of spans pass the same net that log lines do.
"""
