"""What crosses a process: message models, names of updates, queries and queues, activity stubs."""
