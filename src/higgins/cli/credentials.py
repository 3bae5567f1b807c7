"""What ``higgins up`` makes once in its data directory: the secret key, the first user, and an ``openrc`` for them."""

import os
import secrets
from pathlib import Path

import bcrypt
from cryptography.fernet import Fernet

from higgins.private_files import write_private


def secret_key(data: Path) -> bytes:
    """The key that passwords of registries and injected files are encrypted with."""
    path = data / "secret.key"
    if not path.exists():
        write_private(path, Fernet.generate_key().decode() + "\n")
    return path.read_text().strip().encode()


def user_line(user: str, password: str, project: str, roles: str) -> str:
    """A line of the users file."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()}:{project}:{roles}\n"


def first_user(data: Path) -> Path:
    """The users file; made with an administrator of a random password, together with ``openrc``, if it is not there."""
    users, openrc = data / "users", data / "openrc"
    if not users.exists():
        password = secrets.token_urlsafe(18)
        write_private(
            openrc,
            "export OS_AUTH_TYPE=http_basic\n"
            "export OS_ENDPOINT=\n"
            "export OS_USERNAME=admin\n"
            f"export OS_PASSWORD={password}\n",
        )
        write_private(users, user_line("admin", password, "demo", "admin"))
    return users


def tell_endpoint(data: Path, endpoint: str) -> None:
    """Let ``openrc`` name the endpoint that is served now."""
    path = data / "openrc"
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    wanted = [f"export OS_ENDPOINT={endpoint}\n" if line.startswith("export OS_ENDPOINT=") else line for line in lines]
    if wanted != lines:
        status = path.stat()
        write_private(path, "".join(wanted))
        os.chown(path, status.st_uid, status.st_gid)
