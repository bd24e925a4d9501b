"""What stands before the first start of a deployment: its secrets, its databases, its key service, its bucket, its namespace.

Every step is safe to repeat: what is there stays as it is, what is missing is made.
"""
