"""The table of rules: name, default, what it guards, and the call. The names are Zun's; the last few are Higgins'."""

from oslo_policy import policy

#: The blocks that defaults are made of. The first four carry Zun's names, so that an operator's file keeps working.
BASE = (
    ("context_is_admin", "role:admin", "An administrator of the cloud."),
    (
        "admin_or_owner",
        "rule:context_is_admin or project_id:%(project_id)s",
        "Anyone in the project, whatever the role.",
    ),
    ("admin_api", "rule:context_is_admin", "Calls for administrators."),
    ("deny_everybody", "!", "Nobody at all."),
    ("service_api", "role:service", "Another service of the cloud, in its own name."),
    ("project_reader", "role:reader and project_id:%(project_id)s", "Who may look at what the project has."),
    ("project_member", "role:member and project_id:%(project_id)s", "Who may change what the project has."),
    (
        "project_manager",
        "role:manager and project_id:%(project_id)s",
        "Who may put right what is stuck in the project.",
    ),
    ("reading", "rule:context_is_admin or rule:project_reader or rule:service_api", "Looking."),
    ("reading_all", "rule:context_is_admin or rule:service_api", "Looking at all projects."),
    ("writing", "rule:context_is_admin or rule:project_member", "Changing."),
    ("managing", "rule:context_is_admin or rule:project_manager", "Putting right by force."),
)

READ, READ_ALL, WRITE, MANAGE = "rule:reading", "rule:reading_all", "rule:writing", "rule:managing"
ADMIN, NOBODY = "rule:admin_api", "rule:deny_everybody"

_C, _ONE = "/v1/containers", "/v1/containers/{container}"
_GROUPS, _GROUP = "/v1/security_groups", "/v1/security_groups/{security_group}"

#: name, default, meaning, method, path
RULES: tuple[tuple[str, str, str, str, str], ...] = (
    ("container:create", WRITE, "Create a container.", "POST", _C),
    ("container:create:runtime", ADMIN, "Choose the runtime class of a new container.", "POST", _C),
    ("container:create:privileged", ADMIN, "Create a privileged container.", "POST", _C),
    ("container:create:requested_destination", ADMIN, "Choose the host of a new container.", "POST", _C),
    ("container:create:image_pull_policy", ADMIN, "Choose when the image is pulled.", "POST", _C),
    ("container:delete", WRITE, "Delete a container.", "DELETE", _ONE),
    ("container:delete_all_projects", ADMIN, "Delete a container of any project.", "DELETE", _ONE),
    ("container:delete_force", MANAGE, "Delete a container by force.", "DELETE", _ONE),
    ("container:get_one", READ, "Show a container.", "GET", _ONE),
    ("container:get_one_all_projects", READ_ALL, "Show a container of any project.", "GET", _ONE),
    ("container:get_one:host", ADMIN, "See the host of a container, and list by host.", "GET", _ONE),
    ("container:get_one:image_pull_policy", ADMIN, "See the image pull policy.", "GET", _ONE),
    ("container:get_one:privileged", ADMIN, "See whether a container is privileged.", "GET", _ONE),
    ("container:get_one:runtime", ADMIN, "See the runtime class.", "GET", _ONE),
    ("container:get_all", READ, "List containers.", "GET", _C),
    ("container:get_all_all_projects", READ_ALL, "List the containers of all projects.", "GET", _C),
    ("container:update", WRITE, "Change a container.", "PATCH", _ONE),
    ("container:start", WRITE, "Start a container.", "POST", f"{_ONE}/start"),
    ("container:stop", WRITE, "Stop a container.", "POST", f"{_ONE}/stop"),
    ("container:reboot", WRITE, "Restart a container.", "POST", f"{_ONE}/reboot"),
    ("container:pause", WRITE, "Pause a container.", "POST", f"{_ONE}/pause"),
    ("container:unpause", WRITE, "Let a paused container go on.", "POST", f"{_ONE}/unpause"),
    ("container:logs", WRITE, "Read the output of a container.", "GET", f"{_ONE}/logs"),
    ("container:execute", WRITE, "Run a command in a container.", "POST", f"{_ONE}/execute"),
    ("container:execute_resize", WRITE, "Resize the terminal of a command.", "POST", f"{_ONE}/execute_resize"),
    ("container:kill", WRITE, "Send a signal to a container.", "POST", f"{_ONE}/kill"),
    ("container:rename", WRITE, "Rename a container.", "POST", f"{_ONE}/rename"),
    ("container:attach", WRITE, "Attach to a container.", "GET", f"{_ONE}/attach"),
    ("container:resize", WRITE, "Resize the terminal of a container.", "POST", f"{_ONE}/resize"),
    ("container:top", READ, "See the processes of a container.", "GET", f"{_ONE}/top"),
    ("container:get_archive", WRITE, "Copy files out of a container.", "GET", f"{_ONE}/get_archive"),
    ("container:put_archive", WRITE, "Copy files into a container.", "POST", f"{_ONE}/put_archive"),
    ("container:stats", READ, "See what a container uses.", "GET", f"{_ONE}/stats"),
    ("container:commit", WRITE, "Make an image of a container.", "POST", f"{_ONE}/commit"),
    ("container:add_security_group", WRITE, "Add a security group.", "POST", f"{_ONE}/add_security_group"),
    ("container:remove_security_group", WRITE, "Remove a security group.", "POST", f"{_ONE}/remove_security_group"),
    ("container:network_attach", WRITE, "Attach a network.", "POST", f"{_ONE}/network_attach"),
    ("container:network_detach", WRITE, "Detach a network.", "POST", f"{_ONE}/network_detach"),
    ("container:network_list", READ, "List the networks of a container.", "GET", f"{_ONE}/network_list"),
    ("container:rebuild", WRITE, "Make a container anew.", "POST", f"{_ONE}/rebuild"),
    ("container:resize_container", WRITE, "Change cpu and memory.", "POST", f"{_ONE}/resize_container"),
    ("container:actions", READ, "See what was asked of a container.", "GET", f"{_ONE}/container_actions"),
    (
        "container:action:events",
        ADMIN,
        "See the traces of failed actions.",
        "GET",
        f"{_ONE}/container_actions/{{request}}",
    ),
    ("image:pull", ADMIN, "Have an image pulled to a host.", "POST", "/v1/images"),
    ("image:get_all", ADMIN, "List images.", "GET", "/v1/images"),
    ("image:get_one", ADMIN, "Show an image.", "GET", "/v1/images/{image}"),
    ("image:delete", ADMIN, "Delete an image from its host.", "DELETE", "/v1/images/{image}"),
    ("image:search", READ, "Search for images.", "GET", "/v1/images/{image}/search"),
    ("zun-service:get_all", ADMIN, "List services.", "GET", "/v1/services"),
    ("zun-service:delete", ADMIN, "Forget a service.", "DELETE", "/v1/services"),
    ("zun-service:enable", ADMIN, "Enable a service.", "PUT", "/v1/services/enable"),
    ("zun-service:disable", ADMIN, "Disable a service.", "PUT", "/v1/services/disable"),
    ("zun-service:force_down", ADMIN, "Declare a service down.", "PUT", "/v1/services/force_down"),
    ("host:get_all", ADMIN, "List hosts.", "GET", "/v1/hosts"),
    ("host:get", ADMIN, "Show a host.", "GET", "/v1/hosts/{host}"),
    ("capsule:create", WRITE, "Create a capsule.", "POST", "/v1/capsules"),
    ("capsule:delete", WRITE, "Delete a capsule.", "DELETE", "/v1/capsules/{capsule}"),
    ("capsule:delete_all_projects", ADMIN, "Delete a capsule of any project.", "DELETE", "/v1/capsules/{capsule}"),
    ("capsule:get", READ, "Show a capsule.", "GET", "/v1/capsules/{capsule}"),
    ("capsule:get_one_all_projects", READ_ALL, "Show a capsule of any project.", "GET", "/v1/capsules/{capsule}"),
    ("capsule:get:host", ADMIN, "See the host of a capsule.", "GET", "/v1/capsules/{capsule}"),
    ("capsule:get_all", READ, "List capsules.", "GET", "/v1/capsules"),
    ("capsule:get_all_all_projects", READ_ALL, "List the capsules of all projects.", "GET", "/v1/capsules"),
    ("network:create", ADMIN, "Create a network.", "POST", "/v1/networks"),
    ("network:delete", ADMIN, "Delete a network.", "DELETE", "/v1/networks/{network}"),
    ("network:attach_external_network", ADMIN, "Put a container on an external network.", "POST", _C),
    ("availability_zones:get_all", READ, "List availability zones.", "GET", "/v1/availability_zones"),
    ("quota:get", READ, "See the quota of a project.", "GET", "/v1/quotas/{project}"),
    ("quota:get_default", READ, "See the default quota.", "GET", "/v1/quotas/{project}/defaults"),
    ("quota:update", ADMIN, "Change the quota of a project.", "PUT", "/v1/quotas/{project}"),
    ("quota:delete", ADMIN, "Set the quota of a project back.", "DELETE", "/v1/quotas/{project}"),
    ("quota_class:get", ADMIN, "See a quota class.", "GET", "/v1/quota_classes/{quota_class}"),
    ("quota_class:update", ADMIN, "Change a quota class.", "PUT", "/v1/quota_classes/{quota_class}"),
    ("registry:create", WRITE, "Add a registry.", "POST", "/v1/registries"),
    ("registry:delete", WRITE, "Delete a registry.", "DELETE", "/v1/registries/{registry}"),
    ("registry:get_one", READ, "Show a registry.", "GET", "/v1/registries/{registry}"),
    ("registry:get_all", READ, "List registries.", "GET", "/v1/registries"),
    ("registry:get_all_all_projects", ADMIN, "List the registries of all projects.", "GET", "/v1/registries"),
    ("registry:update", WRITE, "Change a registry.", "PATCH", "/v1/registries/{registry}"),
    ("network:get_all", READ, "List the networks of the project.", "GET", "/v1/networks"),
    ("security_group:get_all", READ, "List the security groups of the project.", "GET", _GROUPS),
    ("security_group:get_all_all_projects", ADMIN, "List the security groups of all projects.", "GET", _GROUPS),
    ("security_group:get_one", READ, "Show a security group.", "GET", _GROUP),
    ("security_group:create", WRITE, "Create a security group.", "POST", _GROUPS),
    ("security_group:update", WRITE, "Rename a security group.", "PATCH", _GROUP),
    ("security_group:delete", WRITE, "Delete a security group.", "DELETE", _GROUP),
    ("security_group:create_rule", WRITE, "Add a rule to a security group.", "POST", f"{_GROUP}/rules"),
    ("security_group:delete_rule", WRITE, "Delete a rule of a security group.", "DELETE", f"{_GROUP}/rules/{{rule}}"),
    ("volume:get_all", READ, "List the volumes that the project keeps.", "GET", "/v1/volumes"),
    ("volume:get_all_all_projects", ADMIN, "List the volumes of all projects.", "GET", "/v1/volumes"),
    ("volume:delete", WRITE, "Delete a volume.", "DELETE", "/v1/volumes/{volume}"),
    ("event:get_all", READ, "Follow what happens to the project's containers.", "GET", "/v1/events"),
    ("event:get_all_all_projects", READ_ALL, "Follow what happens in all projects.", "GET", "/v1/events"),
    ("metrics:get", READ_ALL, "Read the service's metrics.", "GET", "/metrics"),
)


def defaults() -> list[policy.RuleDefault]:
    """The table as oslo.policy takes it."""
    base = [policy.RuleDefault(name, check, description=meaning) for name, check, meaning in BASE]
    return base + [
        policy.DocumentedRuleDefault(name, check, meaning, [{"method": method, "path": path}])
        for name, check, meaning, method, path in RULES
    ]
