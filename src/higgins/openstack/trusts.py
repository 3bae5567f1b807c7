"""What lets Higgins act for a user later, when the user's token is long gone: a trust of Keystone. Blocking.

A trust is given for one project, with the roles that the caller has now; it ends when the user loses one of them, when
the user is deleted, or when Higgins gives it back.
"""

from keystoneauth1 import exceptions as failures

from higgins.model.errors import Forbidden
from higgins.openstack.errors import ServiceUnavailable
from higgins.openstack.sessions import Sessions
from higgins.openstack.tokens import Token

#: A role that Higgins never acts with for a user, even if the user has it.
_NEVER = frozenset({"admin", "service"})
_TRUSTS, _V3 = "/OS-TRUST/trusts", {"version": "3"}  # the catalogue may or may not name the version


def entrust(sessions: Sessions, token: str, who: Token) -> str:
    """A trust by the owner of ``token``, whom Keystone told to be ``who``; its id.

    Raises Forbidden where the token may not give one (an application credential, unless it is unrestricted).
    """
    own = sessions.own("identity")
    roles = sorted(who.roles - _NEVER)
    if not roles:
        raise Forbidden("You have no role in this project that Higgins could act for you with.")
    body = {
        "trustor_user_id": who.user_id,
        "trustee_user_id": own.get_user_id(),
        "project_id": who.project_id,
        "impersonation": True,
        "roles": [{"name": role} for role in roles],
    }
    try:
        # Not sent again by itself: where only the answer was lost there would be two.
        once = {"endpoint_filter": _V3, "connect_retries": 0}
        answer = sessions.caller("identity", token).post(_TRUSTS, json={"trust": body}, **once)
    except failures.Forbidden as error:
        raise Forbidden(
            "This token may not let Higgins act for you later; use a password, or an unrestricted "
            "application credential."
        ) from error
    except failures.ClientException as error:
        raise ServiceUnavailable("Keystone", "nobody can let Higgins act for them") from error
    return str(answer.json()["trust"]["id"])


def give_back(sessions: Sessions, trust: str) -> None:
    """End a trust. One that has ended already is no error."""
    try:
        sessions.trusting("identity", trust).delete(f"{_TRUSTS}/{trust}", endpoint_filter=_V3)
    except (failures.NotFound, failures.Unauthorized, failures.Forbidden):
        sessions.require_own()  # then nobody can act by it any more
    except failures.ClientException as error:
        raise ServiceUnavailable("Keystone", "a trust cannot be given back") from error
