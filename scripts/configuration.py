"""Write docs/configuration.md from the options, or check it (``--check``): that it is what the options say, and that
every option which a document names in its section is there.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from oslo_config import cfg

from higgins.cli.options import AGENT, COMMAND_LINE, CONTROL_PLANE, GROUPS, HOST
from higgins.cli.status import STATUS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"
NAMED = re.compile(r"`\[(\w+)\] (\w+)")
COMMENTED = re.compile(r"^    [a-z_]+ = .*\s#.*$", re.MULTILINE)
#: Documents that tell of another service's options, whose sections have the same names.
FOREIGN = {"zun.md"}

CONTROL, HOSTS, BOTH = "control plane", "hosts", "both"

#: Of each section: what it is about, and who reads its options.
SECTIONS = {
    "DEFAULT": ("What concerns all of a process.", HOSTS),
    "cinder": ("[Volumes of Cinder](openstack.md#volumes-of-cinder), where `[DEFAULT] volume = cinder`.", HOSTS),
    "database": ("Where everything that Higgins knows is kept.", CONTROL),
    "placement": ("[Hosts shared with Nova](openstack.md#hosts-shared-with-nova).", CONTROL),
    "policy": ("Who may do what. `higgins policy sample` prints every rule with its default.", CONTROL),
    "quota": (
        "What a project may use that has no quota of its own; more in [quotas](openstack.md#quotas).",
        CONTROL,
    ),
    "containers": ("Containers, and [where they go](scheduling.md#settings).", CONTROL),
    "glance": ("[Images of Glance](openstack.md#images-of-glance).", CONTROL),
    "network": (
        "Networks: [Higgins' own](operator.md#networks-and-security-groups), [across "
        "hosts](hosts.md#networks-that-span-hosts), or [Neutron's](openstack.md#networks-of-neutron).",
        CONTROL,
    ),
    "neutron": ("Ports of Neutron, where `[network] driver = neutron`.", HOSTS),
    "runtimes": ("[Runtime classes](engines.md) and users of containers.", CONTROL),
}

#: Who reads an option, where it is not whom its section is for.
READERS = {
    "DEFAULT": {
        **dict.fromkeys(("auth", "public_url", "allowed_origins", "open_metrics"), CONTROL),
        **dict.fromkeys(("volume", "image_cache"), BOTH),
    },
    "cinder": {"volume_type": CONTROL},
    "network": {"driver": BOTH, "overlay": BOTH, "tunnel_address": HOSTS, "tunnel_port": HOSTS, "table": HOSTS},
    "neutron": dict.fromkeys(("device_owner", "check_every", "port_pool", "port_pool_time"), CONTROL),
    "runtimes": {"classes": HOSTS, "user_ids": HOSTS},
}

HEAD = """\
# Configuration: every option

Made from `src/higgins/cli/options.py` by `scripts/configuration`; change it there.

Options of the command line are given as `--name VALUE`. All others are in files of oslo.config's form, which
`--config-file FILE` names (several times, the last counts); nothing is read unless it is named. Options of the command
line may be in a file too, below `[DEFAULT]` and with `_` for `-`; the command line goes before.

`higgins up` is control plane and host at once and reads all of them from one file. With many hosts each process has a
file of its own, and reads what the column *read by* says.
"""

TAIL = """
## Sections of OpenStack's libraries
Where `[DEFAULT] auth = keystone`, `[keystone_authtoken]` is keystonemiddleware's: all its options mean here what they
mean in other services, but for [three](openstack.md#4-the-configuration). Glance, Neutron, Cinder and Placement are
spoken to as the user that it names. With `[quota] driver = unified` there is `[oslo_limit]`, which is oslo.limit's.
`higgins openstack register` prints what both need.
"""


def page() -> str:
    """The document. Raises KeyError for a section that nothing is said about."""
    parts = [HEAD]
    for title, options in (
        ("## Command line\nOf all commands that have a data directory:", COMMAND_LINE),
        ("`higgins up` and `higgins api`:", CONTROL_PLANE),
        ("`higgins agent`:", AGENT),
        ("`higgins host`:", HOST),
        ("`higgins status`:", STATUS),
    ):
        rows = ([f"`--{option.name}`", *told(option)] for option in options)
        parts.append(f"{title}\n\n{table(('option', 'default', 'meaning'), rows)}")
    for group, options in GROUPS.items():
        about, usual = SECTIONS[group]
        readers = READERS.get(group, {})
        rows = ([f"`{one.dest}`", *told(one), readers.get(one.dest, usual)] for one in options)
        parts.append(f"## `[{group}]`\n{about}\n\n{table(('option', 'default', 'meaning', 'read by'), rows)}")
    return "\n".join([*parts, TAIL.lstrip("\n")])


def told(option: cfg.Opt) -> tuple[str, str]:
    """Default and meaning of an option. Raises ValueError for one that has no help."""
    if not option.help:
        raise ValueError(f"The option {option.name} has no help.")
    return default(option), f"{option.help}{bounds(option)}".replace("|", "\\|")


def default(option: cfg.Opt) -> str:
    value = option.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return ", ".join(value)
    return f"`{value}`" if value != "" else ""


def bounds(option: cfg.Opt) -> str:
    """What values there are, where that is not said by the type."""
    kind = option.type
    words = [f"`{word}`" for word in getattr(kind, "choices", None) or () if word]
    if words:
        return f" One of {', '.join(words)}."
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    if low is not None and high is not None:
        return f" {low} to {high}."
    return f" At least {low}." if low not in (None, 0, -1) else ""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def faults() -> Iterator[str]:
    """What is wrong with the page, with options that other documents name, and with settings that they show."""
    if PAGE.read_text() != page():
        yield "docs/configuration.md is not what the options say: scripts/configuration writes it"
    known = {(group, option.dest) for group, options in GROUPS.items() for option in options}
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = document.read_text()
        for group, name in NAMED.findall(text):
            if group in GROUPS and (group, name) not in known and document.name not in FOREIGN:
                yield f"{document.relative_to(ROOT)}: there is no option [{group}] {name}"
        for line in COMMENTED.findall(text):
            yield f"{document.relative_to(ROOT)}: oslo.config takes the comment for a part of the value: {line.strip()}"


def main(arguments: list[str]) -> int:
    """Write the page, or print what is wrong; the exit status is 1 if there is anything."""
    if arguments == ["--check"]:
        found = list(faults())
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
