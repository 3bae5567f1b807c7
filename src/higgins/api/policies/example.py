"""The policy file an operator starts from: every rule with its meaning, commented out."""

import io

from oslo_policy import policy

from higgins.api.policies.rules import defaults


def sample() -> str:
    """YAML with each default as a comment."""
    text = io.StringIO()
    for rule in defaults():
        for line in (rule.description or "").splitlines():
            text.write(f"# {line}\n")
        if isinstance(rule, policy.DocumentedRuleDefault):
            for operation in rule.operations:
                text.write(f"# {operation['method']}  {operation['path']}\n")
        text.write(f'#"{rule.name}": "{rule.check_str}"\n\n')
    return text.getvalue()
