# Read by the other programs here (". scripts/surroundings.sh"): where things lie, how to speak to the operator, how to
# be root. Settings come from the environment:
#   HIGGINS_VAR     the data directory of "make run" (default: var/ in the checkout)
#   HIGGINS_VENV    the Python environment (default: .venv/ in the checkout)
#   HIGGINS_LISTEN  where "make run" serves (default: 127.0.0.1:9517)
#   DOCKER_HOST     the engine to use (default: one that answers, else one of our own in HIGGINS_VAR)
#   PYTHON          the Python that makes the environment (default: python3)

root=$(cd "$(dirname "$0")/.." && pwd)
var=${HIGGINS_VAR:-$root/var}
venv=${HIGGINS_VENV:-$root/.venv}
listen=${HIGGINS_LISTEN:-127.0.0.1:9517}
python=${PYTHON:-python3}
pidfile=$var/higgins.pid
log=$var/higgins.log
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd "$root"

say() {
    printf '%s\n' "$*"
}

# What failed, and on further lines what the operator can do about it.
fail() {
    printf 'higgins: %s\n' "$1" >&2
    shift
    for line in "$@"; do
        printf '         %s\n' "$line" >&2
    done
    exit 1
}

# Wiring network namespaces and mounting volumes needs root; everything else does not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        fail "root is needed for \"$1\", and sudo is not installed" "Run this as root."
    fi
}

# Run a command whose output only matters if it fails: the last lines of it are shown then.
quietly() {
    _output=$(mktemp)
    if "$@" >"$_output" 2>&1; then
        rm -f "$_output"
        return 0
    fi
    tail -n 15 "$_output" >&2
    rm -f "$_output"
    return 1
}

# Is this process what we think it is? A number in a file proves nothing after a reboot.
runs() { # pid, words that its command line must hold
    [ -n "$1" ] && [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"
}

higgins_pid() {
    _pid=$(cat "$pidfile" 2>/dev/null) || return 1
    runs "$_pid" "up --data $var" || return 1
    printf '%s\n' "$_pid"
}

# SIGTERM, then wait until the process has gone.
end() { # pid, seconds to wait
    as_root kill "$1" 2>/dev/null || return 0
    _left=$(($2 * 10))
    while [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do
        [ "$_left" -gt 0 ] || return 1
        _left=$((_left - 1))
        sleep 0.1
    done
}
