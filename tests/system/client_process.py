"""The unmodified ``openstack`` and ``zun`` commands, many times in one process.

Each line on standard input is a JSON list, the program and its arguments; each line on standard output is a JSON
object with the exit ``code`` and what was printed to ``out`` and ``err``. Importing the client takes a second, running
it again takes milliseconds. The entry points are the same that the installed programs call. osc-lib keeps the first
client that it makes: the version and the credentials of a process are those of its environment, once and for all.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable

from openstackclient.shell import OpenStackShell
from zunclient import shell as zun


def openstack(arguments: list[str]) -> int:
    return int(OpenStackShell().run(arguments) or 0)


def legacy(arguments: list[str]) -> int:
    sys.argv = ["zun", *arguments]
    return int(zun.main() or 0)


PROGRAMS: dict[str, Callable[[list[str]], int]] = {"openstack": openstack, "zun": legacy}


def run(program: str, arguments: list[str]) -> tuple[int, str, str]:
    """One call of a program with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = PROGRAMS[program](arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        program, *arguments = json.loads(line)
        code, out, err = run(program, arguments)
        print(json.dumps({"code": code, "out": out, "err": err}), flush=True)
