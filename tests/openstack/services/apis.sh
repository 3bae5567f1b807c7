# Read by stack.sh: OpenStack's own processes, their migrations, users and endpoints.

# What each one's API answers at once it serves.
declare -A urls=(
    [keystone]=http://127.0.0.1:5000/v3 [glance]=http://127.0.0.1:9292/healthcheck [placement]=http://127.0.0.1:8778/
    [neutron]=http://127.0.0.1:9696/ [cinder]=http://127.0.0.1:8776/ [nova]=http://127.0.0.1:8774/
    [heat]=http://127.0.0.1:8004/
)

migrate_keystone() {
    local manage="keystone-manage --config-file $etc/keystone/keystone.conf" url=http://127.0.0.1:5000/v3/
    mkdir -p "$data/keystone"
    $manage db_sync && $manage fernet_setup --keystone-user root --keystone-group root &&
        $manage credential_setup --keystone-user root --keystone-group root &&
        $manage bootstrap --bootstrap-password secret --bootstrap-region-id RegionOne --bootstrap-admin-url $url \
            --bootstrap-internal-url $url --bootstrap-public-url $url
}
migrate_glance() { glance-manage --config-file "$etc/glance/glance-api.conf" db_sync; }
migrate_placement() { placement-manage --config-dir "$etc/placement" db sync; }
migrate_neutron() { neutron-db-manage --config-file "$etc/neutron/neutron.conf" --config-file "$etc/neutron/ml2_conf.ini" upgrade heads; }
migrate_cinder() { PYTHONPATH=$here cinder-manage --config-file "$etc/cinder/cinder.conf" db sync; }
migrate_nova() {
    local manage="nova-manage --config-file $etc/nova/nova.conf"
    $manage api_db sync && $manage cell_v2 map_cell0 --database_connection "$(database_url nova_cell0)" &&
        $manage db sync && { $manage cell_v2 create_cell --name cell1 || [ $? = 2 ]; }
}
migrate_heat() { heat-manage --config-file "$etc/heat/heat.conf" db_sync; }

# All at once: they wait for themselves most of the time.
migrate() {
    local name jobs=()
    for name in $SERVICES; do
        "migrate_$name" >"$log/migrate-$name.log" 2>&1 &
        jobs+=("$!:$name")
    done
    for job in "${jobs[@]}"; do
        wait "${job%%:*}" || fail "the migration of ${job##*:} failed" "$log/migrate-${job##*:}.log"
    done
}

register() {
    start_keystone
    until_true keystone answers ${urls[keystone]}
    (. "$run/openrc" && "$venv/bin/python" "$here/register.py" ${SERVICES#keystone}) >"$log/register.log" 2>&1 ||
        fail "the services cannot be registered" "$log/register.log"
}

serve() {
    local name=$1
    shift
    begin "$name" "$venv/bin/python" "$here/serve_wsgi.py" "$name" "$@"
}

start_keystone() { OS_KEYSTONE_CONFIG_DIR=$etc/keystone serve keystone 5000 keystone.wsgi.api; }
start_glance() { OS_GLANCE_CONFIG_DIR=$etc/glance serve glance 9292 glance.wsgi.api; }
start_placement() { OS_PLACEMENT_CONFIG_DIR=$etc/placement serve placement 8778 placement.wsgi.api; }
# Neutron's OVN driver has to be told the number of API workers where neither uwsgi nor mod_wsgi serves it; without that
# ports never become ACTIVE. It keeps a note of its first worker in TMPDIR, which must not be that of the last run.
start_neutron() {
    rm -rf "$run/neutron-tmp"
    mkdir -p "$run/neutron-tmp"
    ASGI_WORKERS=1 TMPDIR=$run/neutron-tmp OS_NEUTRON_CONFIG_DIR=$etc/neutron \
        OS_NEUTRON_CONFIG_FILES='neutron.conf;ml2_conf.ini' serve neutron 9696 neutron.wsgi.api
}
# It takes what containers ask of 169.254.169.254 to Nova, or to what stands in for it.
start_metadata() {
    begin metadata neutron-ovn-metadata-agent --config-file "$etc/neutron/metadata.ini"
}
start_cinder() {
    local conf="--config-file $etc/cinder/cinder.conf"
    serve cinder 8776 cinder.wsgi.api $conf --log-file "$log/cinder-api.log"
    begin cinder-scheduler cinder-scheduler $conf --log-file "$log/cinder-scheduler.log"
    PYTHONPATH=$here begin cinder-volume cinder-volume $conf --log-file "$log/cinder-volume.log"
}
start_nova() {
    local conf="--config-file $etc/nova/nova.conf" part
    OS_NOVA_CONFIG_DIR=$etc/nova serve nova 8774 nova.wsgi.osapi_compute
    for part in conductor scheduler compute; do begin nova-$part nova-$part $conf --log-file "$log/nova-$part.log"; done
}
start_heat() {
    local conf="--config-file $etc/heat/heat.conf"
    serve heat 8004 heat.wsgi.api $conf --log-file "$log/heat-api.log"
    begin heat-engine heat-engine $conf --log-file "$log/heat-engine.log"
}

start_apis() {
    local name
    ! wanted_queue || until_true RabbitMQ bash -c 'echo >/dev/tcp/127.0.0.1/5672'
    for name in $SERVICES; do "start_$name"; done
    for name in $SERVICES; do until_true "$name" answers "${urls[$name]}"; done
    (. "$run/openrc" && "$venv/bin/python" "$here/ready.py" $SERVICES) >"$log/ready.log" 2>&1 ||
        fail "a service does not become usable" "$log/ready.log"
}

# One service that a test stopped, or that only some tests want.
start_again() {
    "start_$1"
    if [ "$1" = metadata ]; then
        until_true metadata test -S "$data/neutron/metadata_proxy"
    else
        until_true "$1" answers "${urls[$1]}"
    fi
}

end_apis() {
    end heat-engine heat nova-compute nova-scheduler nova-conductor nova cinder-volume cinder-scheduler cinder metadata \
        neutron placement glance keystone
}
