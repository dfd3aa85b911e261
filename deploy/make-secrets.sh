#!/bin/sh
# Makes the secrets of compose.scale.yml in deploy/secrets, once; what is there already is left alone.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# The folder keeps others out; the files can be read by each container's own user, who is nobody on this machine.
chmod 700 secrets
umask 022

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

if [ ! -e secrets/secret_key ]; then random >secrets/secret_key; fi
if [ ! -e secrets/postgres.env ]; then
  password=$(random)
  echo "postgresql+asyncpg://doorbell:$password@postgres:5432/doorbell" >secrets/database_url
  echo "POSTGRES_PASSWORD=$password" >secrets/postgres.env
fi
if [ ! -e secrets/rabbitmq.env ]; then
  password=$(random)
  echo "amqp://doorbell:$password@rabbitmq:5672//" >secrets/broker_url
  echo "RABBITMQ_DEFAULT_PASS=$password" >secrets/rabbitmq.env
fi
echo "deploy/secrets: secret_key, database_url, broker_url, postgres.env, rabbitmq.env"
