#!/bin/sh
# Shows the main job: an unchanged daemon under podnotify, its way to ready, and
# the URL to ask. On a terminal it stays until Ctrl-C; otherwise it ends by
# itself a few seconds after the daemon is ready (RUN_SECONDS).
set -eu
bin=${1:-bin}
port=${PORT:-19119}
url=http://127.0.0.1:$port
dir=$(mktemp -d)
chmod 711 "$dir" # or podnotify warns: a daemon that drops root could not enter
trap 'rm -rf "$dir"' EXIT

if command -v redis-server >/dev/null 2>&1; then
	set -- redis-server --port 0 --unixsocket "$dir/redis.sock" --dir "$dir" --save '' --supervised systemd
else
	echo "(no redis-server here: showing the example daemon; apt-get install redis-server for the real thing)"
	set -- "$bin/mydaemon" -l 127.0.0.1:0
fi
echo "\$ podnotify run -- $*"
"$bin/podnotify" run --listen "127.0.0.1:$port" --run-dir "$dir/run" --log-format text -- "$@" &
pid=$!
trap 'kill -TERM $pid 2>/dev/null || :; wait $pid 2>/dev/null || :; rm -rf "$dir"' EXIT
trap 'exit 0' TERM
trap 'wait $pid 2>/dev/null || :; exit 0' INT # Ctrl-C has reached podnotify as well: twice would be too much for redis

until "$bin/podnotify" healthcheck bound --address "$url" >/dev/null 2>&1; do # nobody listens yet
	kill -0 $pid 2>/dev/null || { echo "podnotify ended" >&2; exit 1; }
	sleep 0.1
done

last=
tries=0
while :; do
	kill -0 $pid 2>/dev/null || { echo "podnotify ended" >&2; exit 1; }
	if answer=$("$bin/podnotify" healthcheck ready --address "$url" 2>&1); then
		code=200
	else
		code=503
	fi
	if [ "$answer" != "$last" ]; then
		echo "GET $url/readyz -> $code $answer"
		last=$answer
	fi
	[ $code = 200 ] && break
	tries=$((tries + 1))
	[ $tries -lt 600 ] || { echo "not ready after a minute" >&2; exit 1; }
	sleep 0.1
done

echo
"$bin/podnotify" status --address "$url" || :
cat <<END

The daemon said that it is ready, and nobody changed it. Ask, from anywhere:
  curl -i $url/readyz            200 while it is ready, 503 and why while not
  curl    $url/readyz?verbose    every check
  curl    $url/statusz           all that is known, as JSON
Or kill -STOP its Main PID, ask again, and kill -CONT it.
END
if [ -t 0 ] && [ -t 1 ]; then
	echo "Ctrl-C ends it."
	wait $pid || :
else
	sleep "${RUN_SECONDS:-5}"
	kill -TERM $pid
	wait $pid || :
	echo "(ended: not on a terminal)"
fi
