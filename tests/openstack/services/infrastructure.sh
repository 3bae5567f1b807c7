# Read by stack.sh: MariaDB, RabbitMQ, Open vSwitch with its userspace datapath, and OVN.
ovs_run=/run/openvswitch
ovn_run=/run/ovn
databases="keystone glance placement neutron cinder nova nova_api nova_cell0 heat"

sql() { mariadb --defaults-file="$etc/my.cnf" -e "$1"; }

start_infrastructure() {
    ! wanted_queue || start_queue  # first: it takes longest, and nobody waits for it yet
    start_database
    ! wanted neutron || start_switch
    ! wanted cinder || stand_in_for_nfs
}

start_database() {
    if [ ! -d "$data/mysql/mysql" ]; then
        mariadb-install-db --defaults-file="$etc/my.cnf" --auth-root-authentication-method=normal --skip-test-db \
            --user=root >"$log/mysql-install.log" 2>&1 || fail "the database cannot be made" "$log/mysql-install.log"
    fi
    begin mysqld mariadbd --defaults-file="$etc/my.cnf"
    until_true MariaDB sql 'SELECT 1'
    sql "GRANT ALL ON *.* TO os@127.0.0.1 IDENTIFIED BY 'secret'"
    local name
    for name in $databases; do sql "CREATE DATABASE IF NOT EXISTS $name CHARACTER SET utf8mb3"; done
}

# epmd and Erlang's distribution listen on loopback only, and no scheduler spins while it waits.
start_queue() {
    HOME=$data/rabbit ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODENAME=rabbit@localhost \
        RABBITMQ_CONFIG_FILE=$etc/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$etc/rabbit_plugins \
        RABBITMQ_MNESIA_BASE=$data/rabbit RABBITMQ_LOG_BASE=$log RABBITMQ_PID_FILE=$run/rabbit-beam \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none" \
        begin rabbit /usr/lib/rabbitmq/bin/rabbitmq-server
}

# detached NAME PROGRAM…: OVS and OVN go into the background by themselves, once they are ready.
detached() {
    local name=$1
    shift
    ! alive "$name" || return 0
    "$@" --pidfile="$run/$name.pid" --log-file="$log/$name.log" -vconsole:off -vsyslog:off --detach --no-chdir
}

# ovs-ctl insists on the kernel module, so the daemons are started one by one.
start_switch() {
    mkdir -p $ovs_run $ovn_run
    [ -f "$data/ovs/conf.db" ] || ovsdb-tool create "$data/ovs/conf.db" /usr/share/openvswitch/vswitch.ovsschema
    detached ovsdb-server ovsdb-server "$data/ovs/conf.db" --remote=punix:$ovs_run/db.sock \
        --remote=ptcp:6640:127.0.0.1 --unixctl=$ovs_run/ovsdb-server.ctl
    ovs-vsctl --no-wait init
    # The switch must know of segmentation offload before it starts, else TCP between namespaces dies of its checksums.
    ovs-vsctl --no-wait set Open_vSwitch . external_ids:system-id="$host" external_ids:hostname="$host" \
        other_config:userspace-tso-enable=true external_ids:ovn-remote=tcp:127.0.0.1:6642 \
        external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=127.0.0.1 \
        external_ids:ovn-bridge-datapath-type=netdev external_ids:ovn-bridge-mappings=public:br-ex \
        external_ids:ovn-cms-options=enable-chassis-as-gw
    detached ovs-vswitchd ovs-vswitchd unix:$ovs_run/db.sock --unixctl=$ovs_run/ovs-vswitchd.ctl
    ovs-vsctl --may-exist add-br br-ex -- set bridge br-ex datapath_type=netdev
    ip addr replace 172.24.4.1/24 dev br-ex  # the host's side of the provider network "public"
    ip link set br-ex up
    local name port
    for name in nb sb; do
        port=$([ $name = nb ] && echo 6641 || echo 6642)
        [ -f "$data/ovn/$name.db" ] || ovsdb-tool create "$data/ovn/$name.db" /usr/share/ovn/ovn-$name.ovsschema
        detached ovn-$name ovsdb-server "$data/ovn/$name.db" --remote=punix:$ovn_run/ovn${name}_db.sock \
            --remote=ptcp:$port:127.0.0.1 --unixctl=$ovn_run/ovn${name}_db.ctl
        ovn-${name}ctl init
    done
    detached ovn-northd ovn-northd --ovnnb-db=unix:$ovn_run/ovnnb_db.sock --ovnsb-db=unix:$ovn_run/ovnsb_db.sock \
        --unixctl=$ovn_run/ovn-northd.ctl
    detached ovn-controller ovn-controller unix:$ovs_run/db.sock
}

# Cinder's NFS driver on a kernel without NFS. mount(8) looks in /sbin only; a view of it that also holds our program is
# laid over it, in our own mount namespace, so that the machine's is not changed.
stand_in_for_nfs() {
    [ ! -x /sbin/mount.nfs ] || return 0
    [ "${HIGGINS_TEST_NAMESPACE:-}" = 1 ] || return 0
    mkdir -p "$run/sbin"
    install -m 755 "$here/mount.nfs" "$run/sbin/mount.nfs"
    mount -t overlay -o lowerdir="$run/sbin:/usr/sbin" overlay /usr/sbin
}

end_infrastructure() {
    end ovn-controller ovn-northd
    # Bridges that are there when the switch ends leave their interfaces behind.
    if alive ovs-vswitchd; then
        for bridge in br-int br-ex; do ovs-vsctl --timeout=5 --if-exists del-br $bridge || :; done
    fi
    end ovn-sb ovn-nb ovs-vswitchd ovsdb-server rabbit mysqld
    ! ip link show ovs-netdev >/dev/null 2>&1 || ip link del ovs-netdev
    awk -v under="$data/cinder/mnt" 'index($2, under) == 1 {print $2}' /proc/mounts | xargs -r -n 1 umount
}
