#!/usr/bin/env bash
# Runs a command with a Docker engine of its own, which ends with it: no service, no bridge, no firewall rule.
#
#   launch/docker/engine.sh FOLDER COMMAND [ARGUMENT ...]
#
# Needs root and Debian's docker.io. FOLDER takes images and the socket, and stays; DOCKER_HOST tells COMMAND.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "engine.sh must be root: sudo $0 $*" >&2; exit 1; }
command -v dockerd >/dev/null || { echo "engine.sh needs dockerd: apt-get install docker.io" >&2; exit 1; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
export DOCKER_HOST=unix://$folder/docker.sock

# Started again when it ends, as a service would be: `kill $(cat FOLDER/dockerd.pid)` is a restart.
keep_running() {
  trap 'kill $! 2>/dev/null; wait $!; exit' TERM
  while true; do
    rm -f "$folder/dockerd.pid"
    dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" \
      --bridge=none --iptables=false --ip6tables=false --ip-forward=false >>"$folder/log" 2>&1 &
    wait $! || true
    sleep 0.5
  done
}
keep_running &
engine=$!
trap 'kill $engine 2>/dev/null || true; wait $engine 2>/dev/null || true' EXIT

for _ in $(seq 150); do
  docker version >/dev/null 2>&1 && break
  sleep 0.2
done
docker version >/dev/null 2>&1 || { echo "the engine did not start:" >&2; tail -20 "$folder/log" >&2; exit 1; }
"$@"
