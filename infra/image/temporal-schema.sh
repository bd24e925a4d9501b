#!/bin/sh
# Brings Temporal's two databases to the schema of this version. Safe to repeat.
set -eu
SQL_PASSWORD=$(cat /run/secrets/postgres-temporal)
export SQL_PASSWORD
for pair in temporal:temporal temporal_visibility:visibility; do
  SQL_DATABASE=${pair%%:*}
  export SQL_DATABASE
  schema=/etc/temporal/schema/postgresql/v12/${pair##*:}/versioned
  temporal-sql-tool setup-schema -v 0.0 || true # there already
  temporal-sql-tool update-schema -d "$schema"
done
