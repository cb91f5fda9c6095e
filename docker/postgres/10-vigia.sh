#!/bin/sh
# Creates a role without superuser rights and a database for Vigía; runs once, in an empty PostgreSQL volume.
set -eu
DATABASE_PASSWORD=$(cat /run/secrets/database_password)
export DATABASE_PASSWORD
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="${POSTGRES_DB:-$POSTGRES_USER}" <<'SQL'
\getenv password DATABASE_PASSWORD
CREATE ROLE vigia LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
CREATE DATABASE vigia OWNER vigia;
REVOKE CONNECT ON DATABASE vigia FROM PUBLIC;
SQL
unset DATABASE_PASSWORD
