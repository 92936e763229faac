"""Access tokens at the gateway (RFC 9068, RFC 8725): verified once, then looked up.

A verified token is stored as a row in a stick table. Its key is the SHA-256 of the Authorization header. The row says
how long the token is accepted without another check, and has a bit for each scope that the token grants. Only a token
that passed every check gets a row.

Revocations are looked up before the row is written, and again after it. A revocation is first written to the map; then
the table is cleared. So no interleaving of the two leaves a row for a revoked token. docs/sessions.md explains why this
is safe.
"""

from collections.abc import Iterator, Sequence

from escala.auth.tokens import MAX_TOKEN, TYPE
from escala.gateway.render import limits
from escala.gateway.render.context import Key, RenderContext
from escala.gateway.render.rules import by_value, refuse, when
from escala.gateway.render.text import quoted
from escala.gateway.topology.routes import ResolvedRoute
from escala.gateway.topology.topology import Topology

TABLE = "escala.tokens"
REFUSED = "escala.refused"
"""Counts, by address, the requests that were refused because of their token, which was not in the table."""

_SEVERAL = "The request has more than one token."
_SPELLED = "The Authorization header is malformed: expected Bearer, one space, and the token without padding."
_REVOKED = "The token was revoked."
_BITS = 32  # in one general purpose tag (gpt) of a stick table


def table(topology: Topology) -> list[str]:
    auth = topology.config.auth
    words = 1 + -(-len(topology.scopes) // _BITS)
    seconds = max(1, round(auth.remember_for))
    return [
        "# Verified tokens, by SHA-256 of the Authorization header; auth.remember sets size, remember_for sets expire",
        f"stick-table type binary len 32 size {auth.remember} expire {seconds}s store gpt({words})",
    ]


def refused_table() -> list[str]:
    return [
        "# Number of invalid tokens by client address: auth.wrong_tokens",
        "stick-table type ipv6 size 100000 expire 10s store gpc(1),gpc_rate(1,1s)",
    ]


def known() -> Iterator[str]:
    """Allow requests with a known token; they skip all later rules of the frontend.

    Each connection keeps its last Authorization header and the digest of it, because the next request usually has the
    same header. Both are always set together, in one expression. So txn.key always belongs to this request's header.
    """
    yield "# A request with an already verified token skips the rest of this section"
    same = "{ req.fhdr(authorization),strcmp(sess.authorization) -m int eq 0 }"
    yield "http-request set-var(txn.key) var(sess.key)" + when(same)
    digest = "req.fhdr(authorization),set-var(sess.authorization),sha2(256),set-var(sess.key)"
    yield f"http-request set-var(txn.key) {digest}" + when("!{ var(txn.key) -m found }")
    yield "http-request set-var(txn.now) date()"
    remembered = f"{{ var(txn.key),table_gpt(0,{TABLE}),sub(txn.now) -m int gt 0 }}"
    yield "http-request allow" + when(remembered, "{ req.fhdr_cnt(authorization) eq 1 }")


def verify(topology: Topology, context: RenderContext) -> Iterator[str]:
    """Check a token that is not in the table yet, and store it there."""
    yield "# If a token is not in the table of verified tokens: verify it, and store it there"
    yield "http-request set-var(txn.bearer) http_auth_bearer"
    for several in ("{ req.fhdr_cnt(authorization) gt 1 }", "{ req.fhdr(authorization) -m sub , }"):
        yield refused(_SEVERAL) + when(several)
    # Only one spelling is accepted, apart from upper and lower case in the scheme. So one token makes few rows, and its
    # owner cannot fill the table with it.
    spelled = f"{{ req.fhdr(authorization) -m reg {quoted('^[^ ]+ [^ ]+$')} }}"
    yield refused(_SPELLED) + when("{ http_auth_bearer -m found }", f"!{spelled}")
    missing = refuse(401, "An access token is required.", ("WWW-Authenticate", "Bearer"))
    yield missing + when("!{ var(txn.bearer) -m len gt 0 }")
    yield refused("The token is too long.") + when(f"{{ var(txn.bearer) -m len gt {MAX_TOKEN} }}")
    yield from _within_budget(topology)
    yield from _signature(context.keys)
    yield "http-request set-var(txn.claims) var(txn.bearer),field(2,.),ub64dec"
    for claim, expected in (("iss", topology.config.issuer), ("aud", topology.config.audience)):
        right = f"!{{ var(txn.claims),json_query('$.{claim}') -m str -- {quoted(expected)} }}"
        yield refused(f"The token is for another system ({claim}).") + when(right)
    yield from _times(topology.config.auth.max_ttl)
    yield from _revoked(context)
    yield from _remember(topology, context)
    yield "http-request set-var(txn.verified) bool(true)"


def _within_budget(topology: Topology) -> Iterator[str]:
    """Refuse addresses that send so many invalid tokens that verifying them would slow other clients down.

    Requests refused here are not counted. So a valid token passes as soon as the rate of invalid ones is low enough.
    """
    yield "# auth.wrong_tokens: an address that sends more invalid tokens per second gets 429"
    counter = topology.limit_counters + 1
    above = f"{{ {limits.ADDRESS},table_gpc_rate(0,{REFUSED}) gt {topology.config.auth.wrong_tokens} }}"
    yield refuse(429, "Too many invalid tokens were sent from this address.", ("Retry-After", "1")) + when(above)
    yield f"http-request track-sc{counter} {limits.ADDRESS} table {REFUSED}"
    wrong = (f"{{ sc_tracked({counter}) }}", "!{ var(txn.verified) -m bool }")
    yield f"http-after-response sc-inc-gpc(0,{counter})" + when(*wrong)


def granted(scopes: Sequence[str], reaching: Sequence[ResolvedRoute]) -> Iterator[str]:
    """Refuse tokens that lack a scope of the route, for the routes that reach a backend.

    The bit of a scope is its index in `scopes`, the list of all scopes.
    """
    places = {scope: divmod(bit, _BITS) for bit, scope in enumerate(scopes)}
    for group in by_value(reaching, lambda route: route.policy.scopes):
        masks: dict[int, int] = {}
        for scope in group.value:
            word, bit = places[scope]
            masks[word] = masks.get(word, 0) | 1 << bit
        if group.value:
            yield group.comment("scopes")
        needed = " ".join(group.value)
        challenge = ("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="{needed}"')
        refusal = refuse(403, f"The token needs these scopes: {needed}.", challenge)
        for word, mask in masks.items():
            held = f"!{{ var(txn.key),table_gpt({word + 1},{TABLE}),and({mask}) -m int eq {mask} }}"
            yield refusal + when(group.condition, held)


def refused(detail: str) -> str:
    """Return the action that answers 401 to an invalid token (RFC 6750, section 3.1)."""
    return refuse(401, detail, ("WWW-Authenticate", f'Bearer error="invalid_token", error_description="{detail}"'))


def _signature(keys: Sequence[Key]) -> Iterator[str]:
    """Verify the signature with the key that the token names, and only with the algorithm of that key."""
    yield "# Verify the signature with the named key, and only with that key's algorithm (RFC 8725, 3.1)"
    for name in ("alg", "typ", "kid"):
        yield f"http-request set-var(txn.{name}) var(txn.bearer),jwt_header_query('$.{name}')"
    foreign = refused("The token is not an access token of this system.")
    algorithms = " ".join(sorted({key.algorithm for key in keys}))
    yield foreign + when(f"!{{ var(txn.alg) -m str -- {algorithms} }}")
    yield foreign + when(f"!{{ var(txn.typ) -m str -i -- {TYPE} }}")
    # The last base64url character of a signature may have unused bits. Only one spelling is accepted.
    yield "http-request set-var(txn.signature) var(txn.bearer),field(3,.)"
    yield refused(_SPELLED) + when("!{ var(txn.signature),ub64dec,ub64enc,strcmp(txn.signature) -m int eq 0 }")
    for key in keys:
        own = (f"{{ var(txn.kid) -m str -- {quoted(key.kid)} }}", f"{{ var(txn.alg) -m str -- {key.algorithm} }}")
        check = f'http-request set-var(txn.signed) var(txn.bearer),jwt_verify("{key.algorithm}",{quoted(key.file)})'
        yield check + when(*own)
    yield refused("The token's signature is invalid.") + when("!{ var(txn.signed) -m int eq 1 }")


def _times(max_ttl: float) -> Iterator[str]:
    yield "# exp, auth.max_ttl, nbf"
    yield "http-request set-var(txn.until) var(txn.claims),json_query('$.exp','int')"
    yield refused("The token has expired.") + when("!{ var(txn.until),sub(txn.now) -m int gt 0 }")
    longest = round(max_ttl)
    yield refused("The token's lifetime is too long.") + when(f"{{ var(txn.until),sub(txn.now) -m int gt {longest} }}")
    early = "{ var(txn.claims),json_query('$.nbf','int'),sub(txn.now) -m int gt 0 }"
    yield refused("The token is not valid yet.") + when(early)


def _revoked(context: RenderContext) -> Iterator[str]:
    """Refuse revoked tokens. The maps' keys are hexadecimal SHA-256, as identifiers may contain any character."""
    yield "# `escala revoke`: the maps contain the SHA-256 of jti and sub"
    for name, claim in (("subject", "sub"), ("id", "jti")):
        yield f"http-request set-var(txn.{name}) var(txn.claims),json_query('$.{claim}')"
        yield refused("The token lacks sub or jti.") + when(f"!{{ var(txn.{name}) -m found }}")
    for condition in _is_revoked(context):
        yield refused(_REVOKED) + when(*condition)


def _is_revoked(context: RenderContext) -> Iterator[tuple[str, ...]]:
    yield (f"{{ var(txn.id),sha2(256),hex,map_str({quoted(context.revoked_tokens)}) -m found }}",)
    since = f"var(txn.subject),sha2(256),hex,map_str_int({quoted(context.revoked_users)})"
    later = "{ var(txn.claims),json_query('$.iat','int'),sub(txn.since) -m int gt 0 }"
    # set-var is used as a converter here, to keep the time of the revocation. A token without iat counts as revoked.
    yield (f"{{ {since},set-var(txn.since) -m found }}", f"!{later}")


def _remember(topology: Topology, context: RenderContext) -> Iterator[str]:
    scopes = topology.scopes
    yield "# Store the token: the time until which it is accepted, and a bit for each of its scopes"
    if scopes:
        # With spaces around the list, each scope can be matched as a whole word.
        yield "http-request set-var(txn.scope) var(txn.claims),json_query('$.scope')"
        yield 'http-request set-var-fmt(txn.scope) " %[var(txn.scope)] "'
    seconds = max(1, round(topology.config.auth.remember_for))
    again = f"{{ var(txn.until),sub(txn.now) -m int gt {seconds} }}"
    yield f"http-request set-var(txn.until) var(txn.now),add({seconds})" + when(again)
    yield f"http-request track-sc0 var(txn.key) table {TABLE}"
    for first in range(0, len(scopes), _BITS):
        word = first // _BITS
        yield f"http-request set-var(txn.bits{word}) int(0)"
        for bit, scope in enumerate(scopes[first : first + _BITS]):
            holds = f'{{ var(txn.scope) -m sub -- " {scope} " }}'
            yield f"http-request set-var(txn.bits{word}) var(txn.bits{word}),or({1 << bit})" + when(holds)
        yield f"http-request sc-set-gpt({word + 1},0) var(txn.bits{word})"
    yield "http-request sc-set-gpt(0,0) var(txn.until)"  # last: this makes the token count as verified
    for condition in _is_revoked(context):
        yield "http-request sc-set-gpt(0,0) int(0)" + when(*condition)
        yield refused(_REVOKED) + when(*condition)
