"""The command ``higgins``: a word that says what to do, then options."""

import getpass
import sys
from collections.abc import Callable

from higgins import __version__
from higgins.cli import credentials
from higgins.cli.options import AGENT, CONTROL_PLANE, HOST, database_url, read
from higgins.cli.processes import starting

USAGE = """\
higgins up             serve the API and run containers on this machine (--help tells the options)
higgins api            serve the API alone; containers run on hosts that join
higgins agent          run containers on this machine for a control plane that it joined (--join URL --token TOKEN)
higgins host token     print a token with which one machine may join (--ttl SECONDS)
higgins host revoke N  refuse the host of that name from now on
higgins host authority show the certificate authority, or bring one (--certificate FILE --key FILE)
higgins host authority rotate  have another authority take its place (--finish ends that; --certificate, --key)
higgins host drain N   place nothing on that host any more, and have move what may (undrain N: take it back)
higgins status         tell how hosts and workloads are, and what is stuck (--json)
higgins status upgrade check  tell what speaks against an upgrade
higgins clean          remove all containers, networks and mounts of Higgins from this machine
higgins db upgrade     bring the database to this version's tables
higgins user LINE…     print a line for the users file: higgins user NAME PROJECT ROLE[,ROLE]
higgins openstack register   make Higgins known to a cloud's Keystone (--help tells the options)
higgins policy sample  print every policy rule with its default and its meaning
higgins version        print the version
"""


def _up(arguments: list[str]) -> int:
    starting()
    from higgins.cli import up  # the API and the engines' libraries take a while to load: only who serves needs them

    return up.run(read(arguments, CONTROL_PLANE, "up"))


def _api(arguments: list[str]) -> int:
    starting()
    from higgins.cli import api

    return api.run(read(arguments, CONTROL_PLANE, "api"))


def _agent(arguments: list[str]) -> int:
    starting()
    from higgins.cli import agent

    if arguments[:1] == ["join"]:
        return agent.join(read(["--join", *arguments[1:]], AGENT, "agent")) if len(arguments) > 1 else _usage()
    return agent.run(read(arguments, AGENT, "agent"))


def _host(arguments: list[str]) -> int:
    from higgins.cli import host

    if arguments[:1] == ["token"]:
        return host.token(read(arguments[1:], HOST, "host token"))
    if arguments[:2] == ["authority", "rotate"]:
        return host.rotate(read(arguments[2:], HOST, "host authority rotate"))
    if arguments[:1] == ["authority"]:
        return host.authority(read(arguments[1:], HOST, "host authority"))
    if arguments[:1] == ["revoke"] and len(arguments) > 1 and not arguments[1].startswith("-"):
        return host.revoke(read(arguments[2:], HOST, "host revoke"), arguments[1])
    if arguments[:1] in (["drain"], ["undrain"]) and len(arguments) > 1 and not arguments[1].startswith("-"):
        from higgins.cli import drain

        act = drain.drain if arguments[0] == "drain" else drain.undrain
        return act(read(arguments[2:], command=f"host {arguments[0]}"), arguments[1])
    return _usage()


def _status(arguments: list[str]) -> int:
    from higgins.cli import status

    if arguments[:2] == ["upgrade", "check"]:
        return status.upgrade_check(read(arguments[2:], status.STATUS, "status upgrade check"))
    return status.run(read(arguments, status.STATUS, "status"))


def _clean(arguments: list[str]) -> int:
    from higgins.cli import clean

    return clean.run(read(arguments, command="clean"))


def _db(arguments: list[str]) -> int:
    from higgins.store.database import make_engine
    from higgins.store.migrate import TooOld, current, migrate

    if arguments[:1] != ["upgrade"]:
        return _usage()
    engine = make_engine(database_url(read(arguments[1:], command="db upgrade")))
    try:
        migrate(engine)
    except TooOld as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    print(f"The database is at revision {current(engine)}.")
    return 0


def _user(arguments: list[str]) -> int:
    if len(arguments) != 3:
        return _usage()
    user, project, roles = arguments
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    print(credentials.user_line(user, password, project, roles), end="")
    return 0


def _policy(arguments: list[str]) -> int:
    from higgins.api.policies import sample

    if arguments != ["sample"]:
        return _usage()
    print(sample(), end="")
    return 0


def _openstack(arguments: list[str]) -> int:
    from higgins.cli import openstack

    return openstack.run(arguments)


def _version(arguments: list[str]) -> int:
    print(__version__)
    return 0


def _usage() -> int:
    print(USAGE, end="", file=sys.stderr)
    return 2


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "up": _up,
    "api": _api,
    "agent": _agent,
    "host": _host,
    "status": _status,
    "clean": _clean,
    "db": _db,
    "user": _user,
    "openstack": _openstack,
    "policy": _policy,
    "version": _version,
}


def main() -> int:
    """The entry point; the exit code."""
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    return command(sys.argv[2:]) if command else _usage()


if __name__ == "__main__":
    sys.exit(main())
