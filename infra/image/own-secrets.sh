#!/bin/sh
# Gives each secret of `sluice prepare secrets FOLDER` to the users that read it in the containers: ours own every file (10001), a
# server that reads one as well gets it by its group. Run as root on the host, once: sh infra/image/own-secrets.sh ./secrets
set -eu
folder=${1:?the folder of secrets}
chown 10001:10001 "$folder" "$folder"/*
chmod 0711 "$folder"
chmod 0600 "$folder"/*
share() { # GROUP FILE...
  group=$1
  shift
  for name in "$@"; do
    chown "10001:$group" "$folder/$name"
    chmod 0640 "$folder/$name"
  done
}
share 70 postgres-admin.password                          # PostgreSQL
share 1000 postgres-temporal.password                     # Temporal and its schema
share 10002 s3.json                                       # the store
share 1000 openbao.seal openbao.crt openbao.key           # OpenBao
