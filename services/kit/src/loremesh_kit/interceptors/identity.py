"""Puts the verified caller in force for the call."""

import re
from typing import Any

from loremesh_kit.errors import IdentityMissing
from loremesh_kit.identity import PRINCIPAL_HEADER, TENANT_HEADER, Identity, scope
from loremesh_kit.interceptors.chain import Call, Proceed

# Also keeps out `*`, which the database reads as every tenant.
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PRINCIPAL = re.compile(r"[!-~]{1,256}")


class IdentityInterceptor:
    """Reads tenant and principal from metadata which only the gateway and sister services can set."""

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call as its caller; raises IdentityMissing."""
        tenant = call.metadata.get(TENANT_HEADER, "")
        principal = call.metadata.get(PRINCIPAL_HEADER, "anonymous")
        if not _TENANT.fullmatch(tenant) or not _PRINCIPAL.fullmatch(principal):
            raise IdentityMissing
        with scope(Identity(tenant=tenant, principal=principal, request_id=call.request_id)):
            return await proceed()
