# Read by stack.sh: programs in the background, known by a file with their number.

alive() {
    local pid
    pid=$(cat "$run/$1.pid" 2>/dev/null) && [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

# begin NAME COMMAND…: in a session of its own, so that "end" reaches its children too.
begin() {
    local name=$1
    shift
    ! alive "$name" || return 0
    setsid "$@" >>"$log/$name.out" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
}

# end NAME…: SIGTERM to all, ten seconds for them to go, SIGKILL for who did not.
end() {
    local name waited=0
    for name in "$@"; do ! alive "$name" || signal TERM "$name"; done
    for name in "$@"; do
        while alive "$name" && [ $waited -lt 100 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
        ! alive "$name" || signal KILL "$name"
        rm -f "$run/$name.pid"
    done
}

signal() {
    local pid group
    pid=$(cat "$run/$2.pid")
    group=$(ps -o pgid= -p "$pid" | tr -d ' ')
    if [ "$group" = "$pid" ]; then kill "-$1" -- "-$pid" 2>/dev/null || :; else kill "-$1" "$pid" 2>/dev/null || :; fi
}

# until_true WHAT COMMAND…: for two minutes.
until_true() {
    local what=$1 left=1200
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "$what does not answer; its log is in $log"
        sleep 0.1
    done
}

answers() { case $(curl -s -o /dev/null -m 5 -w '%{http_code}' "$1") in [234]*) ;; *) return 1 ;; esac; }

status() {
    local file name pid memory
    for file in "$run"/*.pid; do
        [ -e "$file" ] || continue
        name=$(basename "$file" .pid)
        pid=$(cat "$file")
        if alive "$name"; then
            memory=$(ps -o rss= -g "$pid" -p "$pid" | awk '{sum += $1} END {printf "%d", sum / 1024}')
            printf '%-18s runs, process %s, %s MB\n' "$name" "$pid" "$memory"
        else
            printf '%-18s ended by itself\n' "$name"
        fi
    done
}
