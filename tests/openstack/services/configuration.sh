# Read by stack.sh: the configuration of each service, as small as it runs with.

database_url() { echo "mysql+pymysql://os:secret@127.0.0.1/$1?charset=utf8"; }

# credentials USER: the options of a Keystone session
credentials() {
    cat <<END
auth_url = http://127.0.0.1:5000
auth_type = password
username = $1
password = secret
project_name = service
user_domain_id = default
project_domain_id = default
region_name = RegionOne
END
}

authtoken() {
    cat <<END
[keystone_authtoken]
www_authenticate_uri = http://127.0.0.1:5000
service_token_roles = service
service_token_roles_required = true
$(credentials "$1")
END
}

service_user() { printf '[service_user]\nsend_service_user_token = true\n%s\n' "$(credentials "$1")"; }

queue_url=rabbit://guest:guest@127.0.0.1:5672/

# Everything that a service expects to find.
directories() {
    mkdir -p "$data"/{mysql,ovs,ovn,rabbit,images,nfs,loop,cinder,nova/instances,neutron,lock}
}

configure() {
    mkdir -p "$etc"/{keystone,glance,placement,neutron,cinder,nova,heat}
    configure_infrastructure
    local name
    for name in $SERVICES; do "configure_$name"; done
}

configure_infrastructure() {
    cat >"$run/openrc" <<END
export OS_AUTH_URL=http://127.0.0.1:5000/v3 OS_USERNAME=admin OS_PASSWORD=secret OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_ID=default OS_PROJECT_DOMAIN_ID=default OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=RegionOne
export PATH=$venv/bin:\$PATH
END
    cat >"$etc/my.cnf" <<END
[mysqld]
datadir=$data/mysql
socket=$run/mysql.sock
pid-file=$run/mysqld.pid
log-error=$log/mysql.log
bind-address=127.0.0.1
port=3306
user=root
skip-name-resolve
performance_schema=off
innodb_buffer_pool_size=64M
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
max_connections=500
character-set-server=utf8mb3
[client]
socket=$run/mysql.sock
user=root
END
    cat >"$etc/rabbitmq.conf" <<END
listeners.tcp.local = 127.0.0.1:5672
log.console = false
disk_free_limit.absolute = 50MB
collect_statistics_interval = 60000
END
    echo '[].' >"$etc/rabbit_plugins"
}

configure_keystone() {
    cat >"$etc/keystone/keystone.conf" <<END
[DEFAULT]
log_file = $log/keystone.log
[database]
connection = $(database_url keystone)
[token]
expiration = 86400
[fernet_tokens]
key_repository = $data/keystone/fernet-keys
[credential]
key_repository = $data/keystone/credential-keys
[cache]
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
END
}

configure_glance() {
    cat >"$etc/glance/glance-api.conf" <<END
[DEFAULT]
log_file = $log/glance.log
enabled_backends = fs:file
worker_self_reference_url = http://127.0.0.1:9292
[database]
connection = $(database_url glance)
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = $data/images
[os_glance_staging_store]
filesystem_store_datadir = $data/images-stage
[os_glance_tasks_store]
filesystem_store_datadir = $data/images-tasks
[paste_deploy]
flavor = keystone
config_file = $venv/etc/glance/glance-api-paste.ini
[oslo_concurrency]
lock_path = $data/lock
$(authtoken glance)
END
}

configure_placement() {
    cat >"$etc/placement/placement.conf" <<END
[DEFAULT]
log_file = $log/placement.log
[placement_database]
connection = $(database_url placement)
$(authtoken placement)
END
}

configure_neutron() {
    cat >"$etc/neutron/neutron.conf" <<END
[DEFAULT]
log_file = $log/neutron.log
state_path = $data/neutron
core_plugin = ml2
service_plugins = ovn-router,qos
transport_url = fake://
rpc_workers = 0
api_paste_config = $venv/etc/neutron/api-paste.ini
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = $(database_url neutron)
[oslo_concurrency]
lock_path = $data/lock
$(authtoken neutron)
END
    cat >"$etc/neutron/ml2_conf.ini" <<END
[ml2]
type_drivers = local,flat,geneve
tenant_network_types = geneve
mechanism_drivers = ovn
extension_drivers = port_security,qos
[ml2_type_geneve]
vni_ranges = 1:65536
max_header_size = 38
[ml2_type_flat]
flat_networks = *
[securitygroup]
enable_security_group = true
[ovn]
ovn_nb_connection = tcp:127.0.0.1:6641
ovn_sb_connection = tcp:127.0.0.1:6642
enable_distributed_floating_ip = true
ovn_metadata_enabled = true
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
END
    configure_metadata
}

# For OVN's metadata agent, which "start metadata" starts where a test wants it.
configure_metadata() {
    cat >"$etc/neutron/metadata.ini" <<END
[DEFAULT]
log_file = $log/neutron-metadata.log
state_path = $data/neutron
metadata_proxy_shared_secret = secret
nova_metadata_host = 127.0.0.1
nova_metadata_port = 8775
[AGENT]
root_helper =
$(for part in '' _dhcp_release _ovs_vsctl _namespace _conntrack _link; do
    printf '[privsep%s]\nhelper_command = %s\n' "$part" "$venv/bin/privsep-helper"
done)
[ovn]
ovn_sb_connection = tcp:127.0.0.1:6642
[ovs]
ovsdb_connection = tcp:127.0.0.1:6640
[oslo_concurrency]
lock_path = $data/lock
END
}

configure_cinder() {
    echo "127.0.0.1:$data/nfs" >"$etc/cinder/nfs_shares"
    cat >"$etc/cinder/cinder.conf" <<END
[DEFAULT]
state_path = $data/cinder
transport_url = $queue_url
my_ip = 127.0.0.1
host = $host
glance_api_servers = http://127.0.0.1:9292
enabled_backends = loop,nfs
default_volume_type = loop
rootwrap_config = $venv/etc/cinder/rootwrap.conf
api_paste_config = $venv/etc/cinder/api-paste.ini
resource_query_filters_file = $venv/etc/cinder/resource_filters.json
volume_clear = none
[nfs]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = $etc/cinder/nfs_shares
nfs_mount_point_base = $data/cinder/mnt
nas_secure_file_operations = false
nas_secure_file_permissions = false
nfs_snapshot_support = true
[loop]
volume_driver = loopvol.LoopDriver
volume_backend_name = loop
loop_dir = $data/loop
[database]
connection = $(database_url cinder)
[oslo_concurrency]
lock_path = $data/lock
[privsep_osbrick]
helper_command = $venv/bin/privsep-helper
[cinder_sys_admin]
helper_command = $venv/bin/privsep-helper
$(authtoken cinder)
$(service_user cinder)
END
}

configure_nova() {
    cp "$venv/etc/nova/api-paste.ini" "$etc/nova/"
    cat >"$etc/nova/nova.conf" <<END
[DEFAULT]
state_path = $data/nova
instances_path = $data/nova/instances
transport_url = $queue_url
my_ip = 127.0.0.1
host = $host
compute_driver = fake.FakeDriverWithoutFakeNodes
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
rootwrap_config = $venv/etc/nova/rootwrap.conf
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 10
[api_database]
connection = $(database_url nova_api)
[database]
connection = $(database_url nova)
[glance]
api_servers = http://127.0.0.1:9292
[oslo_concurrency]
lock_path = $data/lock
[vnc]
enabled = false
[nova_sys_admin]
helper_command = $venv/bin/privsep-helper
[cinder]
os_$(credentials nova | grep region)
$(credentials nova | grep -v region)
[neutron]
$(credentials neutron)
[placement]
$(credentials nova)
$(authtoken nova)
$(service_user nova)
END
}

configure_heat() {
    cat >"$etc/heat/heat.conf" <<END
[DEFAULT]
transport_url = $queue_url
stack_user_domain_name = heat
stack_domain_admin = heat_domain_admin
stack_domain_admin_password = secret
num_engine_workers = 1
environment_dir = $venv/etc/heat/environment.d
template_dir = $venv/etc/heat/templates
region_name_for_services = RegionOne
[paste_deploy]
api_paste_config = $venv/etc/heat/api-paste.ini
[database]
connection = $(database_url heat)
[oslo_concurrency]
lock_path = $data/lock
[trustee]
$(credentials heat | grep -v -E 'region|project')
[clients_keystone]
auth_uri = http://127.0.0.1:5000
$(authtoken heat)
END
}
