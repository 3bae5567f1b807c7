"""``higgins openstack register``: make Higgins known to a cloud's Keystone, and print what Higgins must know of it."""

import argparse
import sys
from pathlib import Path

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

import openstack
from higgins.control.settings import Settings
from higgins.openstack.registration import Missing, Registered, Wanted, register

USAGE = """\
Makes (or brings up to date) in Keystone: the project of service users, the user of Higgins with the role "service", the
services "application-container" and "container" (its name for Zun's clients), and their endpoints. The credentials
must be an administrator's; they come from OS_* variables or from --os-cloud, as for the openstack command."""


def run(arguments: list[str]) -> int:
    """The exit code. The settings go to standard output, what was done to standard error."""
    options = _parser().parse_args(arguments)
    try:
        cloud = openstack.connect(cloud=options.os_cloud)
        done = register(cloud, _wanted(options))
    except (Missing, SDKException, ClientException, OSError) as error:
        print(f"higgins: {error}", file=sys.stderr)
        return 1
    for change in done.changes or ["nothing had to be done"]:
        print(change, file=sys.stderr)
    print(settings(done, options), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("higgins openstack", description=USAGE)
    parser.add_argument("verb", choices=["register"])
    parser.add_argument(
        "--url", required=True, help="where callers reach the API, such as https://cloud.example:9517/v1"
    )
    parser.add_argument("--internal-url", help="where other services reach it, if elsewhere")
    parser.add_argument("--admin-url", help="where administrators reach it, if elsewhere")
    parser.add_argument("--region", default="RegionOne")
    parser.add_argument("--user", default="higgins", help="the service user (default: higgins)")
    parser.add_argument("--project", default="service", help="the project of service users (default: service)")
    parser.add_argument("--domain", default="Default", help="the domain of both (default: Default)")
    parser.add_argument(
        "--password-file", type=Path, help="the user's password; without it a new user gets a random one"
    )
    parser.add_argument("--os-cloud", help="a cloud of clouds.yaml; without it OS_* variables count")
    parser.add_argument(
        "--unified-limits", action="store_true", help="let the user read unified limits, and register the defaults"
    )
    return parser


def _wanted(options: argparse.Namespace) -> Wanted:
    urls = {
        "public": options.url,
        "internal": options.internal_url or options.url,
        "admin": options.admin_url or options.internal_url or options.url,
    }
    return Wanted(
        urls=urls,
        region=options.region,
        user=options.user,
        password=options.password_file.read_text().strip() if options.password_file else None,
        project=options.project,
        domain=options.domain,
        limits=Settings().quota if options.unified_limits else None,
    )


def settings(done: Registered, options: argparse.Namespace) -> str:
    """The part of higgins.conf that the registration decides."""
    user = (
        f"auth_url = {done.auth_url}\n"
        "auth_type = password\n"
        f"username = {options.user}\n"
        f"password = {done.password or 'THE PASSWORD THAT WAS SET BEFORE'}\n"
        f"user_domain_name = {options.domain}\n"
    )
    limits = f"\n[quota]\ndriver = unified\n\n[oslo_limit]\n{user}system_scope = all\n"
    return (
        "[DEFAULT]\n"
        "auth = keystone\n\n"
        "[keystone_authtoken]\n"
        f"www_authenticate_uri = {done.auth_url}\n"
        f"{user}"
        f"project_name = {options.project}\n"
        f"project_domain_name = {options.domain}\n"
        f"region_name = {options.region}\n"
    ) + (limits if options.unified_limits else "")
