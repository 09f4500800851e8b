"""Turns the claims of a token into a principal and its grants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from progress_broker.errors import Unauthenticated
from progress_broker.model.grants import Action, Grant, Grants, granted
from progress_broker.model.metadata import terms
from progress_broker.model.operation import Label
from progress_server.auth.principal import Principal

MAX_GRANTS = 64
"""Maximum grants of one principal: each request may look at all of them."""

LATEST_S = 253_370_764_800.0
"""The year 9999, after which there are no dates. An `exp` in milliseconds by mistake would be later."""

_Values = Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=256)]
_ACTIONS = frozenset(Action)


def _searchable(metadata: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for key, values in metadata.items():
        list(terms(key, values))
    return metadata


_Searchable = Annotated[list[StrictStr | StrictBool | StrictInt | StrictFloat], Field(min_length=1, max_length=256)]
_Metadata = Annotated[dict[str, _Searchable], AfterValidator(_searchable), Field(min_length=1, max_length=8)]


class GrantClaim(BaseModel):
    """A grant as written in a token or a key file. A selector that is absent matches all operations."""

    model_config = ConfigDict(extra="forbid")

    actions: list[Action]
    ids: _Values | None = None
    prefixes: _Values | None = None
    owners: _Values | None = None
    kinds: _Values | None = None
    tags: _Values | None = None
    metadata: _Metadata | None = None
    """Values by key of what an operation was created with. Every key has to match."""

    def grant(self) -> Grant:
        """Return the grant that this claim describes."""
        return granted(
            self.actions,
            ids=self.ids,
            prefixes=self.prefixes,
            owners=self.owners,
            kinds=self.kinds,
            tags=self.tags,
            metadata=self.metadata,
        )

    @classmethod
    def selectors_of(cls, grant: Grant) -> dict[str, Any]:
        """Return the selectors that describe a grant, without empty ones."""
        selectors: dict[str, Any] = {
            name: list(values)
            for name in ("ids", "prefixes", "owners", "kinds", "tags")
            if (values := getattr(grant, name)) is not None
        }
        if grant.metadata is not None:
            pairs = (pair.partition("=") for each in grant.metadata for pair in each)
            selectors["metadata"] = {}
            for key, _, value in pairs:
                selectors["metadata"].setdefault(key, []).append(value)
        return selectors


GRANTS: TypeAdapter[list[GrantClaim]] = TypeAdapter(Annotated[list[GrantClaim], Field(max_length=MAX_GRANTS)])
NAME: TypeAdapter[str] = TypeAdapter(Label)


@dataclass(frozen=True, slots=True)
class Claims:
    """The names of the claims that hold the principal, the actions and the grants."""

    subject: str = "sub"
    scope: str = "scope"
    grants: str = "grants"

    def principal(self, claims: Mapping[str, Any], leeway_s: float) -> Principal:
        """Return the principal of verified claims; raise `Unauthenticated` if they are not valid."""
        try:
            name = NAME.validate_python(claims.get(self.subject), strict=True)
            wider = GRANTS.validate_python(claims.get(self.grants) or [])
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            raise Unauthenticated(f"the claims of the token are not valid: {fault['msg']}") from None
        token_id = claims.get("jti")
        return Principal(
            name,
            Grants((*scope_grant(name, claims.get(self.scope)), *(claim.grant() for claim in wider))),
            min(float(claims["exp"]) + leeway_s, LATEST_S),
            token_id if isinstance(token_id, str) else None,
        )


def scope_grant(name: str, scope: object) -> Sequence[Grant]:
    """Return the grant of a scope's actions on the principal's own operations. Other words in the scope are ignored."""
    words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else ()
    actions = _ACTIONS.intersection(word for word in words if isinstance(word, str))
    return [Grant(frozenset(map(Action, actions)), owners=frozenset({name}))] if actions else []
