#!/bin/sh
# Makes the secrets of docker-compose.yml that are not there yet. Run it as root: each file then belongs to the user of the
# container that reads it. Another folder may be given, for a look.
set -eu
umask 077
cd "${1:-$(dirname "$0")}"

random() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }

# write FILE OWNER: stdin becomes the file, whole or not at all.
write() {
  cat >".$1.new"
  if [ "$(id -u)" = 0 ]; then chown "$2" ".$1.new"; fi
  mv ".$1.new" "$1"
  echo "made $1"
}

redis=999:999 rabbitmq=999:999 snapbridge=65532:65532 grafana=472:472

# Both ends of a password are made together.
if [ ! -e redis_users ] || [ ! -e redis_url ]; then
  password=$(random 24)
  # `default` is the health check: it may ping and nothing else.
  write redis_users "$redis" <<END
user default on nopass resetkeys resetchannels -@all +ping
user snapbridge on >$password ~* &* +@all -@dangerous -@admin +info
END
  printf 'redis://snapbridge:%s@redis:6379/0\n' "$password" | write redis_url "$snapbridge"
fi

if [ ! -e rabbitmq_user ] || [ ! -e amqp_url ]; then
  password=$(random 24)
  write rabbitmq_user "$rabbitmq" <<END
default_user = snapbridge
default_pass = $password
END
  printf 'amqp://snapbridge:%s@rabbitmq:5672/%%2f\n' "$password" | write amqp_url "$snapbridge"
fi

# As `snapbridge keys new` makes it.
if [ ! -e keys ]; then
  write keys "$snapbridge" <<END
# Keys of one snapbridge installation. Keep a copy: without the identity key every account starts anew,
# without the sealing keys no stored credential can be read. Newest sealing key first.
identity $(random 32)
seal $(random 4) $(random 32)
END
fi

# The proxy's certificates; its user is that of snapbridge.
if [ ! -e caddy ]; then
  mkdir caddy
  if [ "$(id -u)" = 0 ]; then chown "$snapbridge" caddy; fi
  echo "made caddy"
fi

if [ ! -e grafana_admin ]; then
  random 16 | write grafana_admin "$grafana"
fi

if [ "$(id -u)" != 0 ]; then
  echo "not run as root: give redis_users to $redis, rabbitmq_user to $rabbitmq, grafana_admin to $grafana, the others to $snapbridge" >&2
fi
