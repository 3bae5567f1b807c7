"""The question "may this caller do that?", asked of oslo.policy."""

from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_policy import opts, policy

from higgins.api.auth import Identity
from higgins.api.policies.rules import defaults
from higgins.model.errors import Forbidden

_MOST_KEPT = 10_000


class Policy:
    """The rules in force: the defaults, and what an operator's file (read again when it changes) makes of them."""

    def __init__(self, policy_file: Path | None = None) -> None:
        if policy_file is not None and not policy_file.is_file():
            raise FileNotFoundError(f"there is no policy file {policy_file}")
        conf = cfg.ConfigOpts()
        name = str(policy_file or "/dev/null")
        opts.set_defaults(conf, policy_file=name)
        conf([], project="higgins", default_config_files=[], default_config_dirs=[])
        conf.set_override("policy_dirs", [], group="oslo_policy")
        self._enforcer = policy.Enforcer(conf, policy_file=name)
        self._enforcer.register_defaults(defaults())
        self._enforcer.load_rules(True)
        self._enforcer.check_rules(raise_on_violation=True)
        self._enforcer.use_conf = policy_file is not None  # without a file there is nothing to read again
        self._decided: dict[tuple[str, Identity, str], bool] | None = None if policy_file else {}

    def allows(self, rule: str, identity: Identity, target_project: str | None = None) -> bool:
        """Whether ``identity`` may do what ``rule`` guards to something of ``target_project`` (its own by default)."""
        project = identity.project_id if target_project is None else target_project
        if self._decided is None:
            return self._decide(rule, identity, project)
        key = (rule, identity, project)
        decided = self._decided.get(key)
        if decided is None:
            if len(self._decided) >= _MOST_KEPT:
                self._decided.clear()
            decided = self._decided[key] = self._decide(rule, identity, project)
        return decided

    def _decide(self, rule: str, identity: Identity, project: str) -> bool:
        credentials: dict[str, Any] = {
            "user_id": identity.user_id,
            "project_id": identity.project_id,
            "roles": sorted(identity.roles),
            "is_admin": "admin" in identity.roles,
            "system_scope": identity.system_scope,
            "service_roles": sorted(identity.service_roles),
        }
        return bool(self._enforcer.enforce(rule, {"project_id": project, "user_id": identity.user_id}, credentials))

    def require(self, rule: str, identity: Identity, target_project: str | None = None) -> None:
        """Raises ``Forbidden`` where ``allows`` says no."""
        if not self.allows(rule, identity, target_project):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")

    def is_admin(self, identity: Identity) -> bool:
        return self.allows("context_is_admin", identity)
