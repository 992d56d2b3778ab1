#!/usr/bin/env bash
# Passes every test there is: format, lints, all crates on both backends, and the demo on both. On a fresh Debian it installs
# what is missing (Redis, RabbitMQ, a reader of PDFs, a browser, promtool, Caddy, sqlite3, systemd-analyze), and it starts servers of its own, on ports and folders of its own.
#
#   ./test.sh            everything
#   ./test.sh services   only starts the servers, prints their URLs, and keeps them until Ctrl-C
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

need() { # need PROGRAM PACKAGE
  [ -x "$1" ] || command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

RABBIT=/usr/lib/rabbitmq/bin
missing=()
need redis-server redis-server
need redis-cli redis-tools
need "$RABBIT/rabbitmq-server" rabbitmq-server
need cc gcc
need pdftotext poppler-utils
need chromium chromium
need chromedriver chromium-driver
need promtool prometheus
need caddy caddy
need sqlite3 sqlite3
need systemd-analyze systemd
python3 -c 'import yaml' 2>/dev/null || missing+=(python3-yaml)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ "${#missing[@]}" -gt 0 ]; then
  say "installing ${missing[*]}"
  # The packages would start servers on the usual ports; ours are started below, and Prometheus is here for promtool alone.
  # Debian asks this file whether a package may start its server. One that is there already is somebody's own answer.
  export DEBIAN_FRONTEND=noninteractive
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    trap 'as_root rm -f "$policy"' EXIT
  fi
  as_root apt-get update -q
  as_root apt-get install -y -q --no-install-recommends "${missing[@]}"
  if [ -n "$(trap -p EXIT)" ]; then
    as_root rm -f "$policy"
    trap - EXIT
  fi
fi

work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

free_ports() { # N free ports, one a line
  python3 - "$1" <<'PY'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print("\n".join(str(s.getsockname()[1]) for s in sockets))
PY
}
mapfile -t ports < <(free_ports 4)
redis_port=${ports[0]} amqp_port=${ports[1]} dist_port=${ports[2]} epmd_port=${ports[3]}

say "starting Redis on $redis_port and RabbitMQ on $amqp_port"
mkdir -p "$work/redis" "$work/rabbit"
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes --save "" \
  --maxmemory-policy noeviction --daemonize no >"$work/redis.log" 2>&1 &
pids+=($!)
epmd -port "$epmd_port" -address 127.0.0.1 >/dev/null 2>&1 &
pids+=($!)
printf '[].' >"$work/rabbit/plugins"
printf 'loopback_users = none\n' >"$work/rabbit/rabbitmq.conf"
env HOME="$work/rabbit" RUNNING_UNDER_SYSTEMD=true \
  RABBITMQ_NODENAME="snapbridge$amqp_port@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$amqp_port" \
  RABBITMQ_DIST_PORT="$dist_port" ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
  RABBITMQ_MNESIA_BASE="$work/rabbit/mnesia" RABBITMQ_LOG_BASE="$work/rabbit/log" \
  RABBITMQ_CONFIG_FILE="$work/rabbit/rabbitmq" RABBITMQ_ENABLED_PLUGINS_FILE="$work/rabbit/plugins" \
  RABBITMQ_PID_FILE="$work/rabbit/pid" RABBITMQ_CONF_ENV_FILE=/dev/null \
  RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
  "$RABBIT/rabbitmq-server" >"$work/rabbit.log" 2>&1 &
pids+=($!)

wait_for() { # wait_for WHAT COMMAND…
  local what=$1 deadline=$((SECONDS + 90))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "$what did not come up:" >&2
      tail -n 20 "$work"/*.log >&2
      exit 1
    fi
    sleep 0.2
  done
}
wait_for Redis redis-cli -p "$redis_port" ping
rabbit_is_up() { grep -rq 'Server startup complete' "$work/rabbit/log" "$work/rabbit.log"; }
wait_for RabbitMQ rabbit_is_up

export SNAPBRIDGE_TEST_REDIS_URL="redis://127.0.0.1:$redis_port"
export SNAPBRIDGE_TEST_AMQP_URL="amqp://guest:guest@127.0.0.1:$amqp_port/%2f"
export REQUIRE_SERVICES=1

if [ "${1:-}" = services ]; then
  echo "export SNAPBRIDGE_TEST_REDIS_URL=$SNAPBRIDGE_TEST_REDIS_URL SNAPBRIDGE_TEST_AMQP_URL=$SNAPBRIDGE_TEST_AMQP_URL"
  wait
fi

say "format"
cargo fmt --all --check

say "lints"
cargo clippy --locked --workspace --all-targets --features crash-points -- -D warnings

if cargo deny --version >/dev/null 2>&1; then
  say "licences, bans, sources"
  cargo deny --locked check bans licenses sources
  # Needs the advisory database, which an offline machine cannot fetch.
  cargo deny --locked check advisories || echo "advisories could not be checked"
else
  say "cargo-deny is not installed: licences and advisories are not checked"
fi

if ! command -v schemathesis >/dev/null 2>&1; then
  say "installing schemathesis (PyPI), which plays what the OpenAPI document allows"
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5
  export SNAPBRIDGE_TEST_SCHEMATHESIS="$work/venv/bin/schemathesis"
fi
if ! python3 -c 'import kubernetes_validate' 2>/dev/null; then
  say "installing kubernetes-validate (PyPI), which has the schemas that manifests must keep to"
  python3 -m venv "$work/venv-kubernetes"
  "$work/venv-kubernetes/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
  export SNAPBRIDGE_TEST_KUBERNETES_VALIDATE="$work/venv-kubernetes/bin/python"
fi

say "tests of all crates, on both backends"
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked --workspace --features crash-points
  cargo test --locked --workspace --features crash-points --doc --quiet
else
  cargo test --locked --workspace --features crash-points -- --test-threads 2
fi

say "traces, which are a feature of their own"
cargo clippy --locked -p snapbridge --all-targets --features crash-points,otel -- -D warnings
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --locked -p snapbridge --features crash-points,otel -E 'test(otel::)'
else
  cargo test --locked -p snapbridge --features crash-points,otel --test it -- otel:: --test-threads 2
fi

say "the demo, embedded"
cargo build --locked --features crash-points
demo=(target/debug/snapbridge demo --exit --json --listen 127.0.0.1:0 --crm-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0)
"${demo[@]}"
say "the demo, on Redis and RabbitMQ"
"${demo[@]}" --store "$SNAPBRIDGE_TEST_REDIS_URL" --queue "$SNAPBRIDGE_TEST_AMQP_URL"

say "all passed"
