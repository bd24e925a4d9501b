"""The users and databases of a deployment on PostgreSQL, each user with no more than it needs.

    sluice           owns the database `sluice` (the records)
    sluice_custody   reads the records, adds custody's leaves and envelopes; owns `sluice_custody`, which nobody else can open
    temporal         owns `temporal` and `temporal_visibility`

`prepare_postgres` runs as the server's administrator, `grant_custody` as the owner of the records after each migration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import psycopg
from psycopg import sql
from sqlalchemy import Engine, text

RECORDS = "sluice"
CUSTODY = "sluice_custody"
TEMPORAL = "temporal"

#: What custody writes in the records: its own leaves and their tree, signed checkpoints, envelopes.
CUSTODY_WRITES: Mapping[str, str] = {
    "audit_leaf": "INSERT",
    "audit_node": "INSERT",
    "audit_head": "UPDATE",
    "audit_checkpoint": "INSERT",
    "envelope": "INSERT",
}


def prepare_postgres(admin_url: str, passwords: Mapping[str, str]) -> list[str]:
    """Make users and databases that are not there yet, and set the users' passwords.

    Args:
        admin_url: the administrator's, with its password, of the database `postgres`.
        passwords: user → password; of `RECORDS`, `CUSTODY`, `TEMPORAL`, those that this server is to have.

    Returns:
        What was made.

    Raises:
        psycopg.Error: the server does not answer or refuses.
    """
    owned = {
        RECORDS: (RECORDS,),
        CUSTODY: (CUSTODY,),
        TEMPORAL: (TEMPORAL, f"{TEMPORAL}_visibility"),
    }
    made = []
    with psycopg.connect(admin_url, autocommit=True, connect_timeout=5) as admin:
        users = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
        databases = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        for user, password in passwords.items():
            verb = "ALTER" if user in users else "CREATE"
            # the password goes over the wire as its SCRAM verifier, and into no log of statements
            verifier = admin.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256")
            statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
            admin.execute(statement.format(sql.Identifier(user), sql.Literal(verifier.decode())))
            made += [f"user {user}"] if verb == "CREATE" else []
            for database in owned[user]:
                if database not in databases:
                    create = sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0")
                    admin.execute(create.format(sql.Identifier(database), sql.Identifier(user)))
                    made.append(f"database {database}")
                revoke = sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC")
                admin.execute(revoke.format(sql.Identifier(database)))
        if RECORDS in passwords and (CUSTODY in passwords or CUSTODY in users):
            grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
            admin.execute(grant.format(sql.Identifier(RECORDS), sql.Identifier(CUSTODY)))
    return made


def grant_custody(engine: Engine, user: str) -> None:
    """Let custody's user read the records and write what `CUSTODY_WRITES` says; safe to repeat.

    Args:
        engine: of the records' owner, migrated.
        user: custody's user; on SQLite there are no users and this does nothing.
    """
    if engine.dialect.name != "postgresql":
        return
    name = sql.Identifier(user).as_string(None)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {name}"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"))
        connection.execute(text(f"REVOKE ALL ON token, idempotency, document FROM {name}"))
        for table, right in CUSTODY_WRITES.items():
            connection.execute(text(f"GRANT {right} ON {table} TO {name}"))


def admin_url(host: str, port: int, user: str, password: str) -> str:
    """The administrator's connection."""
    return psycopg.conninfo.make_conninfo(
        host=host,
        port=port,
        user=user,
        password=password,
        dbname="postgres",
        sslmode=os.environ.get("PGSSLMODE", "prefer"),
    )
