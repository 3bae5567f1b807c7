"""The unmodified ``openstack`` command, many times in one process.

Each line on standard input is a JSON list of arguments; each line on standard output is a JSON object with the exit
``code`` and what was printed to ``out`` and ``err``. Importing the client takes a second, running it again takes
milliseconds. Its entry point is the same that the installed ``openstack`` program calls.
"""

import contextlib
import io
import json
import sys

from openstackclient.shell import OpenStackShell


def run(arguments: list[str]) -> tuple[int, str, str]:
    """One call of ``openstack`` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = int(OpenStackShell().run(arguments) or 0)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        code, out, err = run(json.loads(line))
        print(json.dumps({"code": code, "out": out, "err": err}), flush=True)
