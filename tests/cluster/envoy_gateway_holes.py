"""What each manifest of deploy/envoy-gateway closes: without it, a request shows the hole, and the
doctor names it."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from cases import CHAT, Case, Gateway
from envoy_gateway import EnvoyGateway
from envoy_gateway_teams import Team, without_admission
from kube import until
from programs import Failed


@dataclass
class Hole:
    # What is left out.
    name: str
    change: Callable[[], AbstractContextManager]
    # What the doctor must find besides what it finds anyway.
    rules: set[str]
    # Requests that show it: they are answered like this only without the manifest.
    shows: tuple[Case, ...] = ()
    # Whether patgate does not answer these requests.
    away: bool = False


def show(made: EnvoyGateway, gateway: Gateway) -> None:
    team = Team(made, "guests")
    team.prepare()
    try:
        with team.listeners():
            other = team.route("longer", matches=[{"path": {"value": "/proxy/acme/v1"}}])
            other["spec"] |= {"parentRefs": [team.parent("http")], "hostnames": []}
            with without_admission(made, team):
                team.apply(team.ours(), team.route("empty"), team.policy("empty"), other)
            closed = [team.refused("empty")]
            until("their route is refused", lambda: not gateway.faults(closed))
            before = made.findings()
            wrong = []
            for hole in holes(made, team):
                try:
                    open_and_close(made, gateway, hole, before)
                except Failed as failed:
                    made.site.say(f"  {failed}")
                    wrong.append(str(failed))
            if wrong:
                raise Failed("\n".join(wrong))
        unpatched(made, team, gateway)
        misplaced(made, team, gateway)
    finally:
        team.space.delete()


def open_and_close(made: EnvoyGateway, gateway: Gateway, hole: Hole, before: set) -> None:
    cases = list(hole.shows)
    if cases and not hole.away and not gateway.faults(cases):
        raise Failed(f"these requests do not show what closes the hole: {hole.name}")
    with hole.change():
        more: set[str] = set()

        def named() -> bool:
            more.clear()
            more.update(rule for rule, *_ in made.findings() - before)
            return hole.rules <= more

        try:
            until(f"the doctor names what is wrong without {hole.name}", named, 60, every=1)
        except Failed:
            missed = sorted(hole.rules - more)
            what = f"the doctor misses {missed}, and finds {sorted(more)}"
            raise Failed(f"without {hole.name}, {what}") from None
        with made.frozen() if hole.away else contextlib.nullcontext():
            try:
                until("shown", lambda: not gateway.faults(cases), 90)
            except Failed:
                raise Failed(f"without {hole.name}: {gateway.faults(cases)}") from None
        made.site.say(f"  without {hole.name}: {', '.join(sorted(more))}")
    what = f"the doctor is silent again, with {hole.name}"
    until(what, lambda: made.findings() == before, 60, every=1)


def holes(made: EnvoyGateway, team: Team) -> list[Hole]:
    good = Case("good", token="good", backend="model-acme", http=(1,))
    unnamed = replace(good, status=(503,), backend="")
    one = Case("one model", "/proxy/acme/v1/chat/completions", "one-model", "POST", model="m-1")
    one = replace(one, path=CHAT, http=(1,))
    liar = replace(
        good,
        headers=(("x-forwarded-host", "mallory"),),
        seen={"x-forwarded-host": "mallory"},
    )
    many = tuple((f"h{number}", "x") for number in range(95))

    def without(*items):
        return lambda: made.without(*items)

    def changed(kind, name, edit):
        return lambda: made.changed(kind, name, edit)

    def ext_auth(**fields):
        def edit(spec):
            for key, value in fields.items():
                spec["extAuth"].pop(key, None)
                if value is not None:
                    spec["extAuth"][key] = value

        return changed("SecurityPolicy", "patgate", edit)

    def patches(name, drop):
        def edit(spec):
            kept = [one for one in spec["jsonPatches"] if not drop(one["operation"])]
            if len(kept) == len(spec["jsonPatches"]):
                raise Failed(f"nothing was left out of {name}")
            spec["jsonPatches"] = kept

        return changed("EnvoyPatchPolicy", name, edit)

    def at(path):
        return lambda operation: operation.get("path") == path

    def route(edit):
        return changed("HTTPRoute", "model-acme", edit)

    def no_timeouts(spec):
        for rule in spec["rules"]:
            del rule["timeouts"]

    def all_routes(spec):
        spec["listeners"][0]["allowedRoutes"] = {"namespaces": {"from": "All"}}

    return [
        Hole(
            "the SecurityPolicy",
            without(("SecurityPolicy", "patgate")),
            {"PG-BODY-ALONE"},
            (unnamed,),
        ),
        Hole("recomputeRoute", ext_auth(recomputeRoute=None), {"PG-ROUTE-CACHE"}, (unnamed,)),
        Hole(
            "statusOnError",
            ext_auth(statusOnError=None),
            {"PG-FAIL-STATUS"},
            (replace(good, status=(403,), backend=""),),
            away=True,
        ),
        Hole("failOpen: false", ext_auth(failOpen=True), {"PG-FAIL-OPEN"}),
        Hole("headersToExtAuth", ext_auth(headersToExtAuth=["authorization"]), {"PG-SEE-UPGRADE"}),
        Hole(
            "the catch-all routes",
            without(("HTTPRoute", "patgate-undecided"), ("HTTPRoute", "patgate-everything-else")),
            {"PG-ASK-CATCHALL"},
            # Nobody is asked, and the guard refuses. Without it, this would be a 404.
            (unnamed,),
        ),
        Hole(
            "the ClientTrafficPolicy",
            without(("ClientTrafficPolicy", "patgate")),
            {"PG-HEADER-EARLY", "PG-HEADER-FAMILY", "PG-BODY-WINDOW", "PG-BODY-HOLD"},
            (liar,),
        ),
        Hole(
            "the guard",
            without(("EnvoyPatchPolicy", "patgate-guard")),
            {"PG-GUARD-NONE"},
            (team.open("empty"),),
        ),
        Hole(
            "the form of errors",
            without(("EnvoyPatchPolicy", "patgate-replies")),
            {"PG-GUARD-STATUS"},
            (team.asks("empty", status=(403,)),),
        ),
        Hole(
            "limits of connections",
            without(("EnvoyPatchPolicy", "patgate-connection")),
            {"PG-HEADER-COUNT"},
            (replace(good, headers=many, status=(500, 431), backend=""),),
        ),
        Hole(
            "the authorizer's patches",
            without(("EnvoyPatchPolicy", "patgate-authorizer")),
            {"PG-CHANGE-ANY"},
            (unnamed,),
        ),
        Hole(
            "rules for changes",
            patches("patgate-authorizer", at("/typed_config/decoder_header_mutation_rules")),
            {"PG-CHANGE-ANY"},
        ),
        Hole(
            "the second step",
            patches("patgate-authorizer", lambda operation: "path" not in operation),
            {"PG-BODY-MISSING"},
            (replace(one, status=(503,)),),
        ),
        Hole(
            "the buffer of bodies",
            patches("patgate-authorizer", at("/request_body_buffer_limit")),
            {"PG-BODY-BUFFER"},
            (replace(one, length=2_000_000, status=(413,)),),
        ),
        Hole(
            "the route to nowhere",
            without(("EnvoyPatchPolicy", "patgate-undecided")),
            {"PG-ROUTE-FIXED"},
        ),
        Hole(
            "TLS to patgate",
            without(("BackendTLSPolicy", "patgate")),
            {"PG-TLS-PATGATE"},
            (unnamed,),
        ),
        Hole(
            "the BackendTrafficPolicy",
            without(("BackendTrafficPolicy", "model-acme")),
            {"PG-ROUTE-STREAM", "PG-LIMIT-BACKEND"},
        ),
        Hole("timeouts of the route", route(no_timeouts), {"PG-ROUTE-TIMEOUT"}),
        Hole(
            "the format of the access log",
            changed("EnvoyProxy", "gateway", lambda spec: spec.pop("telemetry")),
            {"PG-LOG-QUERY"},
        ),
        Hole(
            "allowedRoutes",
            changed("Gateway", "gateway", all_routes),
            {"PG-ROUTE-FIXED"},
            (replace(good, asked="/proxy/acme/v1/models"),),
        ),
    ]


def unpatched(made: EnvoyGateway, team: Team, gateway: Gateway) -> None:
    """A listener that no patch names has no guard."""

    def edit(spec: dict) -> None:
        added = {"name": "other", "protocol": "HTTP", "port": 8080}
        granted = {"namespaces": {"from": "All"}}
        spec["listeners"].append(added | {"allowedRoutes": granted})

    other = team.route("other")
    other["spec"]["parentRefs"] = [team.parent("other")]
    with without_admission(made, team):
        team.apply(other, team.policy("other"))
    there = Gateway(made.site, gateway.to.replace(":80", ":8080"))
    with made.changed("Gateway", "gateway", edit):
        until("it is open", lambda: not there.faults([team.open("other")]))
        rules: set[str] = set()

        def named() -> bool:
            rules.clear()
            rules.update(rule for rule, _, place in made.findings() if "gateway/other" in place)
            return "PG-ASK-CHAIN" in rules

        until("the doctor says so", named, 60, every=1)
        made.site.say(f"  a listener without patches: {', '.join(sorted(rules))}")


def misplaced(made: EnvoyGateway, team: Team, gateway: Gateway) -> None:
    """Listeners on one port have the name of the first, so one before `http` takes its patches."""

    def edit(spec: dict) -> None:
        names = {"name": "first", "protocol": "HTTP", "port": 80, "hostname": "*.apps.example.org"}
        spec["listeners"].insert(0, names | {"allowedRoutes": {"namespaces": {"from": "All"}}})

    early = team.route("early")
    early["spec"]["parentRefs"] = [team.parent("first")]
    with without_admission(made, team):
        team.apply(early, team.policy("early"))
    with made.changed("Gateway", "gateway", edit):
        until("it is open", lambda: not gateway.faults([team.open("early")]))
        until("the state of the guard", lambda: not in_force(made, "patgate-guard"))
        found = {(rule, "gateway/first" in place) for rule, _, place in made.findings()}
        if ("PG-ASK-CHAIN", True) not in found and ("PG-GUARD-NONE", True) not in found:
            raise Failed(f"the doctor does not say that a port has no guard: {found}")
    # Their name leads to patgate's own listener again.
    asked = team.asks("early", status=(401,))
    until(
        "patgate is asked", lambda: not gateway.faults([asked]) and in_force(made, "patgate-guard")
    )
    made.site.say("  a listener before those that are patched: open, and the guard says so")


def in_force(made: EnvoyGateway, name: str) -> bool:
    """Whether a patch has found all its places, as the README asks."""
    [ancestor] = made.space.get("envoypatchpolicy", name)["status"]["ancestors"]
    [state] = [one for one in ancestor["conditions"] if one["type"] == "Programmed"]
    return state["status"] == "True"
