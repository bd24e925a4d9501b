#!/bin/sh
# Temporal takes its password from the environment; here it comes from a file.
set -eu
POSTGRES_PWD=$(cat /run/secrets/postgres-temporal)
export POSTGRES_PWD
exec /etc/temporal/entrypoint.sh
