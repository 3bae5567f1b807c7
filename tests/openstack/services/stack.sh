#!/bin/bash
# Real OpenStack services on loopback. scripts/openstack calls this and says where things lie:
#   ROOT      what is kept between runs: the Python environment, the migrated databases, logs
#   SERVICES  which ones: "keystone glance placement neutron cinder nova heat", or the first few of them
#   PYTHON    what makes the environment
# What belongs to one run (databases, sockets, process numbers, configuration) is in /run/higgins-openstack and in DATA.
# In the namespaces of scripts/apart both end with the run; elsewhere "wipe" removes them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${ROOT:?}" "${SERVICES:?}" "${PYTHON:?}"
venv=$ROOT/venv
log=$ROOT/log
run=/run/higgins-openstack
etc=$run/etc
data=${DATA:-$ROOT/data}
host=$(hostname)
export PATH=$venv/bin:$PATH:/usr/sbin:/sbin
unset PYTHONDONTWRITEBYTECODE PYTHONPATH  # without .pyc every start compiles all of OpenStack again

wanted() { [[ " $SERVICES " == *" $1 "* ]]; }
wanted_queue() { wanted cinder || wanted nova || wanted heat; }
started=$(date +%s%N)
say() { awk -v now="$(date +%s%N)" -v then="$started" -v text="$*" 'BEGIN {printf "%6.1f s  %s\n", (now - then) / 1e9, text}'; }
fail() { echo "openstack: $1" >&2; [ -z "${2:-}" ] || tail -n 15 "$2" >&2; exit 1; }

. "$here/processes.sh"
. "$here/configuration.sh"
. "$here/infrastructure.sh"
. "$here/apis.sh"

# The environment is made once for each list of requirements.
environment() {
    local want
    want="$($PYTHON --version) $(cksum <"$here/requirements.lock")"
    mkdir -p "$log"
    [ "$(cat "$venv/.made-from" 2>/dev/null)" != "$want" ] || return 0
    say "installing OpenStack into $venv (a minute, or three without a cache) …"
    [ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check uv >"$log/pip.log" 2>&1 &&
        "$venv/bin/uv" pip install -q --python "$venv/bin/python" -r "$here/requirements.lock" >>"$log/pip.log" 2>&1 ||
        fail "the Python environment cannot be made" "$log/pip.log"
    echo "$want" >"$venv/.made-from"
}

# Migrations take most of a first start. What they made is kept, and unpacked by the next run of the same services.
seed() { echo "$ROOT/seed-${SERVICES// /-}-$(cat "$here"/*.sh "$here"/*.py "$here/requirements.lock" - <<<"$host" | cksum | cut -d' ' -f1).tar.gz"; }

fresh_data() {
    rm -rf "$data"
    mkdir -p "$data"
    directories
    if [ -e "$(seed)" ]; then
        tar -xzf "$(seed)" -C "$data"
        start_infrastructure
        say "databases of an earlier run unpacked, infrastructure runs"
        return
    fi
    start_infrastructure
    say "infrastructure runs; migrating the databases …"
    migrate
    say "databases migrated; registering the services …"
    register
    end keystone mysqld
    rm -f "$ROOT/seed-${SERVICES// /-}"-[0-9]*.tar.gz
    tar -C "$data" -I 'gzip -1' -cf "$(seed).new" mysql keystone
    mv "$(seed).new" "$(seed)"
    start_database
}

all() {
    ! alive mysqld || fail "the services run already; \"scripts/openstack down\" ends them"
    mkdir -p "$run" "$etc"
    environment
    configure
    fresh_data
    say "starting $SERVICES …"
    start_apis
    say "ready"
    echo "Credentials: . $run/openrc"
}

up() {
    [ -e "$run/openrc" ] || fail "nothing is set up yet; \"scripts/openstack all\" does it"
    start_infrastructure
    start_apis
    say "ready"
}

down() {
    end_apis
    end_infrastructure
    say "ended"
}

wipe() {
    down
    rm -rf "$data" "$run" "$log" "$ROOT"/seed-*.tar.gz
}

case ${1:-} in
    environment | all | up | down | wipe | status) "$1" ;;
    pause) signal STOP "$2" ;;
    resume) signal CONT "$2" ;;
    start | stop) verb=$1; shift; for name in "$@"; do [ "$verb" = stop ] && end "$name" || start_again "$name"; done ;;
    *) fail "one of environment, all, up, down, status, wipe, or start, stop, pause, resume SERVICE is wanted" ;;
esac
