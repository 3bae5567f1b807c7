"""What ``higgins up`` makes once in its data directory: the secret key, the first user, and an ``openrc`` for them."""

import os
import secrets
from pathlib import Path

import bcrypt
from cryptography.fernet import Fernet

from higgins.private_files import write_private

#: The cost of a guess, as bcrypt counts it: for what people choose, and for 144 random bits, which nobody guesses.
_CHOSEN, _RANDOM = 10, 4
_SCOPE = "export OS_PROJECT_NAME=demo\nexport OS_USER_DOMAIN_ID=default\nexport OS_PROJECT_DOMAIN_ID=default\n"


def secret_key(data: Path) -> bytes:
    """The key that passwords of registries and injected files are encrypted with."""
    path = data / "secret.key"
    if not path.exists():
        write_private(path, Fernet.generate_key().decode() + "\n")
    return path.read_text().strip().encode()


def user_line(user: str, password: str, project: str, roles: str, cost: int = _CHOSEN) -> str:
    """A line of the users file."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()}:{project}:{roles}\n"


def first_user(data: Path) -> Path:
    """The users file; made with an administrator of a random password if it is not there, together with ``openrc``.

    ``openrc-token`` is for clients that know tokens only: the variables of one way disturb the other.
    """
    users = data / "users"
    if not users.exists():
        password = secrets.token_urlsafe(18)
        user = f"export OS_USERNAME=admin\nexport OS_PASSWORD={password}\n"
        write_private(data / "openrc", f"export OS_AUTH_TYPE=http_basic\nexport OS_ENDPOINT=\n{user}")
        write_private(data / "openrc-token", f"unset OS_AUTH_TYPE OS_ENDPOINT\nexport OS_AUTH_URL=\n{user}{_SCOPE}")
        write_private(users, user_line("admin", password, "demo", "admin", _RANDOM))
    return users


def tell_endpoint(data: Path, endpoint: str) -> None:
    """Let ``openrc`` and ``openrc-token`` name what is served now."""
    told = {"OS_ENDPOINT": endpoint, "OS_AUTH_URL": f"{endpoint.removesuffix('/v1')}/v3"}
    for path in (data / "openrc", data / "openrc-token"):
        if not path.exists():
            continue
        lines = path.read_text().splitlines(keepends=True)
        wanted = [_told_anew(line, told) for line in lines]
        if wanted != lines:
            status = path.stat()
            write_private(path, "".join(wanted))
            os.chown(path, status.st_uid, status.st_gid)


def _told_anew(line: str, told: dict[str, str]) -> str:
    """Pure: a line of ``openrc``, with the value that is told of its variable."""
    name = line.removeprefix("export ").partition("=")[0]
    return f"export {name}={told[name]}\n" if name in told else line
