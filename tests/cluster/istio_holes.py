"""Each manifest of deploy/istio left out or broken: the request that shows the hole, and the name
that the doctor has for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cases import CHAT, HOST, Case, Gateway
from istio_site import Istio, with_time
from kube import named
from programs import Failed

FIXED = "fixed.example.org"


def route_to_one_backend(istio: Istio) -> dict:
    """Returns a route to a backend that does not ask for the header of patgate, at
    a host of its own."""
    spec = {
        "exportTo": ["."],
        "gateways": ["patgate"],
        "hosts": [FIXED],
        "http": [
            {
                "name": "fixed",
                "route": [
                    {
                        "destination": {
                            "host": "model-acme.patgate.internal",
                            "port": {"number": 8001},
                        }
                    }
                ],
            }
        ],
    }
    return {
        **item("networking.istio.io/v1", "VirtualService", "fixed", istio.ingress.name),
        "spec": spec,
    }


def item(version: str, kind: str, name: str, namespace: str) -> dict:
    made = named(version, kind, name)
    made["metadata"]["namespace"] = namespace
    return made


# A request without a token, and where it ends.
UNASKED = Case("no token to a fixed backend", host=FIXED, may="model-acme")
REFUSED = replace(UNASKED, status=(401,), may="", says="missing_credential")
GUARDED = replace(UNASKED, status=(503,), may="", says="temporarily unavailable")
OPEN = replace(UNASKED, backend="model-acme")


@dataclass
class Hole:
    name: str
    # Files that are left out, or applied with a fault.
    out: tuple[str, ...] = ()
    fault: dict[str, Callable[[list[dict]], None]] | None = None
    # What becomes of requests then.
    shown: tuple[Case, ...] = ()
    # The rules by which the doctor names it.
    rules: tuple[str, ...] = ()


def only_some_paths(items: list[dict]) -> None:
    items[0]["spec"]["rules"] = [{"to": [{"operation": {"paths": ["/proxy/*"]}}]}]


def patched(items: list[dict], number: int = 0) -> dict:
    """Returns the filter's settings in a patch of an EnvoyFilter."""
    [found] = [one for one in items if one["kind"] == "EnvoyFilter"]
    return found["spec"]["configPatches"][number]["patch"]["value"]["typed_config"]


def without(*keys: str, number: int = 0) -> Callable[[list[dict]], None]:
    def edit(items: list[dict]) -> None:
        with_time(items)
        for key in keys:
            del patched(items, number)[key]

    return edit


def holes(istio: Istio) -> Iterator[Hole]:
    odd = [
        replace(OPEN, name=f"no token at {path}", path=path, http=(1,))
        for path in ("/PROXY/x", "/proxy")
    ]
    guarded = [replace(GUARDED, name=case.name, path=case.path, http=(1,)) for case in odd]
    yield Hole(
        "an AuthorizationPolicy limited to some paths",
        fault={"authorization.yaml": only_some_paths},
        shown=(*guarded, replace(REFUSED, path="/proxy/x")),
        rules=("PG-ASK-PATHS",),
    )
    raw = replace(odd[0], name="no token at //proxy/x", path="//proxy/x")
    yield Hole(
        "the same, without the guard and the rules about paths",
        out=("guard.yaml", "connection.yaml"),
        fault={"authorization.yaml": only_some_paths},
        shown=(*odd, raw, replace(REFUSED, path="/proxy/x")),
        rules=("PG-ASK-PATHS", "PG-GUARD-NONE", "PG-PATH-SLASHES", "PG-PATH-ESCAPED"),
    )
    yield Hole(
        "no AuthorizationPolicy",
        out=("authorization.yaml",),
        shown=(GUARDED,),
        rules=("PG-ASK-NONE",),
    )
    yield Hole(
        "no AuthorizationPolicy, no guard",
        out=("authorization.yaml", "guard.yaml"),
        shown=(OPEN,),
        rules=("PG-ASK-NONE",),
    )
    yield Hole("no guard", out=("guard.yaml",), shown=(REFUSED,), rules=("PG-GUARD-NONE",))
    spoofed = Case("spoofed backend", token="good", headers=(("x-upstream-cluster", "model-beta"),))
    yield Hole(
        "the route is not chosen again, and clients' headers stay",
        out=("connection.yaml",),
        fault={"authorizer.yaml": without("clear_route_cache")},
        shown=(replace(spoofed, backend="model-beta"),),
        rules=("PG-ROUTE-CACHE", "PG-HEADER-EARLY"),
    )
    yield Hole(
        "the route is not chosen again",
        fault={"authorizer.yaml": without("clear_route_cache")},
        shown=(replace(spoofed, status=(503,)),),
        rules=("PG-ROUTE-CACHE",),
    )
    under = Case(
        "a header with an underscore",
        token="good",
        headers=(("x_user_id", "mallory"),),
        backend="model-acme",
        seen={"x_user_id": "mallory"},
        http=(1,),
    )
    host = replace(
        under,
        name="a misleading header",
        headers=(("x-original-url", "/admin"),),
        seen={"x-original-url": "/admin"},
    )
    yield Hole(
        "no rules about connections",
        out=("connection.yaml",),
        shown=(under, host),
        rules=("PG-HEADER-EARLY", "PG-HEADER-UNDERSCORE", "PG-HEADER-FAMILY"),
    )
    bare = replace(guarded[0], says="RBAC: access denied", status=(403,))
    yield Hole(
        "no answers of our own",
        out=("answers.yaml",),
        fault={"authorization.yaml": only_some_paths},
        shown=(bare,),
        rules=("PG-GUARD-STATUS",),
    )
    # Envoy asks nobody where no route matches, so no request gets further than the guard.
    nowhere = replace(GUARDED, name="a path without a route", host=HOST, path="/nowhere")
    yield Hole(
        "no catch-all",
        out=("routes.yaml",),
        shown=(nowhere, Case("a good token", token="good", status=(503,))),
        rules=("PG-ASK-CATCHALL",),
    )
    yield Hole(
        "no catch-all, no guard",
        out=("routes.yaml", "guard.yaml"),
        shown=(replace(nowhere, status=(404,), says=""),),
        rules=("PG-ASK-CATCHALL", "PG-GUARD-NONE"),
    )
    one = Case("a body that must be read", CHAT, "one-model", "POST", FIXED, model="m-1")
    yield Hole(
        "the second step is missing, no guard",
        out=("guard.yaml",),
        fault={
            "authorizer.yaml": lambda items: (
                with_time(items),
                items[0]["spec"]["configPatches"].pop(),
            )
        },
        shown=(replace(one, backend="model-acme", seen={"x-user-id": None}),),
        rules=("PG-BODY-MISSING", "PG-GUARD-NONE"),
    )
    yield Hole(
        "the second step is missing",
        fault={
            "authorizer.yaml": lambda items: (
                with_time(items),
                items[0]["spec"]["configPatches"].pop(),
            )
        },
        shown=(replace(one, status=(503,)),),
        rules=("PG-BODY-MISSING",),
    )
    yield Hole(
        "nothing about the connection to patgate",
        out=("patgate.yaml",),
        shown=(Case("patgate is not reached", token="good", status=(503,)),),
        rules=("PG-TLS-PATGATE", "PG-FAIL-OUTLIER", "PG-FAIL-KEEPALIVE", "PG-BODY-REPLICA"),
    )


@contextmanager
def left(istio: Istio, hole: Hole) -> Iterator[None]:
    """The gateway without what the hole leaves out."""
    changed = (*hole.out, *(hole.fault or {}))
    for name in hole.out:
        istio.delete(name)
    for name, edit in (hole.fault or {}).items():
        istio.apply(name, edit)
    istio.settle()
    try:
        yield
    finally:
        for name in changed:
            istio.restore(name)
        istio.settle()


def show(istio: Istio, gateway: Gateway) -> None:
    """Goes through all holes."""
    istio.put(route_to_one_backend(istio))
    istio.settle()
    gateway.expect([REFUSED])
    missed = []
    for hole in holes(istio):
        with left(istio, hole):
            istio.site.say(f"without: {hole.name}")
            faults = gateway.faults(list(hole.shown))
            found = {one["rule"] for one in istio.doctor()["findings"]}
            if faults:
                missed.append(f"{hole.name}: {faults}")
            if lost := set(hole.rules) - found:
                missed.append(f"{hole.name}: the doctor found {sorted(found)}, not {sorted(lost)}")
    if missed:
        raise Failed("\n".join(missed))
    gateway.expect([REFUSED])
