#!/bin/sh
# Copies the append-only files of a running Redis 7 as one consistent set: backup-redis.sh /var/lib/redis/appendonlydir TO
# Asks Redis for nothing: the manifest names the files, all but the last of which never change, and the last one only grows. If
# the manifest has changed meanwhile (a rewrite began or ended), it is done again. TO must not be there yet.
set -eu
from=$1 to=$2

if [ -e "$to" ]; then
  echo "$to is there already; name a new folder" >&2
  exit 1
fi

if ! ls "$from"/*.manifest >/dev/null 2>&1; then
  echo "$from has no manifest: name the folder of the append-only files (appenddirname) of a Redis 7 or later" >&2
  exit 1
fi

copy() {
  rm -rf "$to.part"
  mkdir -p "$to.part"
  cp "$from"/*.manifest "$to.part/" || return 1
  for manifest in "$to.part"/*.manifest; do
    # Lines of the form: file NAME seq N type T
    while read -r _ name _; do
      cp -p "$from/$name" "$to.part/$name" || return 1
    done <"$manifest"
    cmp -s "$manifest" "$from/${manifest##*/}" || return 1
  done
}

tries=0
until copy; do
  tries=$((tries + 1))
  if [ "$tries" = 20 ]; then
    rm -rf "$to.part"
    echo "no consistent copy after $tries tries: the files change all the time; try again when no rewrite is due" >&2
    exit 1
  fi
  sleep 1
done
sync
mv "$to.part" "$to"
echo "copied $from to $to"
