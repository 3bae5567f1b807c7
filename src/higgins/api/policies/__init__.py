"""Who may do what: oslo.policy with a documented default for every rule; see ``rules`` for the table."""

from higgins.api.policies.enforcer import Policy
from higgins.api.policies.example import sample

__all__ = ["Policy", "sample"]
