"""Tests the Helm chart: renders it with Helm 3 and Helm 4, without a cluster.

    make chart-test
    python tests/chart/run.py [WORD]    only the sets of values and the defects whose name has WORD

TESTED_PATGATE is the patgate that checks the rendered settings, by default target/release/patgate.
"""

import itertools
import json
import re
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import settings
import yaml
from broken import BROKEN
from cases import ACCEPTED, LEAST, REFUSED
from helm import (
    CHART,
    NAMESPACE,
    RELEASE,
    ROOT,
    Refused,
    helm,
    merged,
    parse,
    programs,
    run,
    template,
)
from hostile import releases, texts
from rules import RULES, label, selectors

sys.path.insert(0, str(ROOT / "tools"))
import chart as derivation  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "selectors.json"
# They make two renderings of the same values differ, or need a cluster.
UNSTEADY = {
    "lookup",
    "now",
    "ago",
    "date",
    "htmlDate",
    "dateModify",
    "unixEpoch",
    "randAlphaNum",
    "randAlpha",
    "randNumeric",
    "randAscii",
    "randInt",
    "randBytes",
    "shuffle",
    "uuidv4",
    "genPrivateKey",
    "genCA",
    "genSelfSignedCert",
    "genSignedCert",
    "htpasswd",
    "bcrypt",
    "getHostByName",
    "derivePassword",
    "encryptAES",
}


def lint(chart, values):
    """`helm lint --strict` has nothing to say."""
    for version in programs():
        done = helm(version, ["lint", "--strict"], chart, values)
        if done.returncode or "[WARNING]" in done.stdout or "[ERROR]" in done.stdout:
            yield f"Helm {version}: {done.stdout}{done.stderr}"


def twice(chart, values):
    """Rendering twice gives the same text, and both Helms give the same objects."""
    texts = {version: template(version, chart, values) for version in programs()}
    for version, text in texts.items():
        if template(version, chart, values) != text:
            yield f"Helm {version} renders something else the second time"
    by_name = [{label(item): item for item in parse(text)} for text in texts.values()]
    if by_name[0] != by_name[1]:
        yield "Helm 3 and Helm 4 render different objects"


def functions(chart, values):
    """No template calls a function whose result changes."""
    for file in sorted((chart / "templates").rglob("*")):
        if file.is_file():
            code = " ".join(re.findall(r"\{\{.*?\}\}", file.read_text(), re.S))
            code = re.sub(r"\{\{-? */\*.*?\*/ *-?\}\}", "", code, flags=re.S)
            words = set(re.findall(r"[A-Za-z0-9]+", re.sub(r'"[^"]*"', "", code)))
            for word in words & UNSTEADY:
                yield f"{file.name} calls {word}"


def golden_selectors(chart, values):
    """Selectors are those of the first version: Kubernetes refuses to change them."""
    if made_selectors(chart) != json.loads(GOLDEN.read_text()):
        yield f"selectors differ from {GOLDEN.name}: no upgrade would pass"


def made_selectors(chart):
    made = {}
    for name in ("everything", "self-service", "sidecar"):
        objects = parse(template("3", chart, merged(LEAST, ACCEPTED[name])))
        for item, selector in selectors(objects):
            if item["kind"] in ("Deployment", "Service"):
                made[label(item)] = selector
    return made


def strict_schema(chart, values):
    """No object with named values takes others."""
    schema = json.loads((chart / "values.schema.json").read_text())

    def walk(node, path):
        if isinstance(node, list):
            for item in node:
                yield from walk(item, path)
        elif isinstance(node, dict):
            if isinstance(node.get("properties"), dict):
                if node.get("additionalProperties") is not False:
                    yield f"{path or 'the root'} takes unknown keys"
                for key, value in node["properties"].items():
                    yield from walk(value, f"{path}.{key}".lstrip("."))
            if "items" in node:
                yield from walk(node["items"], f"{path}[]")

    yield from walk(schema, "")


def versions(chart, values):
    """The chart has the version of the release."""
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    version = cargo["workspace"]["package"]["version"]
    for key in ("version", "appVersion"):
        if metadata[key] != version:
            yield f"{key} of Chart.yaml is {metadata[key]}, not {version}"


def reloads(chart, values):
    """A change that patgate takes up replaces no pod, and another one replaces them."""
    cases = (
        ({"apis": {"tables": {"own.yaml": "name: b"}}}, False),
        ({"logFilter": "debug"}, False),
        ({"settings": {"max_staleness": "1m"}}, True),
        ({"image": {"tag": "b"}}, True),
    )
    base = merged(values, {"apis": {"tables": {"own.yaml": "name: a"}}})
    templates = pod_templates(chart, base)
    for change, replaced in cases:
        if (pod_templates(chart, merged(base, change)) != templates) != replaced:
            yield f"{change}: pods are {'not ' if replaced else ''}replaced"


def pod_templates(chart, values):
    objects = parse(template("3", chart, values))
    return [item["spec"]["template"] for item in objects if item["kind"] == "Deployment"]


def notes(chart, values):
    """The notes render, and name what is reached. Only Helm 4 shows them without a cluster."""
    done = helm("4", ["install", "--dry-run=client", RELEASE], chart, values)
    shown = done.stdout.partition("NOTES:\n")[2]
    if done.returncode or f"helm test --namespace {NAMESPACE} {RELEASE}" not in shown:
        yield f"the notes are {shown or done.stderr}"
    grpc = values.get("grpc", {})
    tls = grpc.get("tls", {})
    sidecar = values.get("mode") == "sidecar"
    policy = values.get("networkPolicy", {}).get("enabled")
    # A certificate of patgate alone keeps nobody from asking.
    known = any((grpc.get("secret"), tls.get("clientNames"), policy, sidecar))
    if ("every pod of the cluster can ask" in shown) == bool(known):
        yield "the notes are wrong about who can ask"
    if ("Tokens pass in plain text" in shown) == bool(tls or sidecar):
        yield "the notes are wrong about TLS"
    shadow = values.get("settings", {}).get("mode") == "shadow"
    if ("requests pass that patgate would deny" in shown) != shadow:
        yield "the notes are wrong about what passes"
    admin = values.get("admin", {})
    proxied = admin.get("proxies") or any(
        admin.get(kind, {}).get("enabled") for kind in ("ingress", "httpRoute")
    )
    claims = bool(proxied and not policy)
    if ("can claim any client" in shown) != claims:
        yield "the notes are wrong about self-service"
    if shown.count("WARNING") != (not known) + shadow + claims:
        yield f"the notes warn of something else: {shown}"


def up_to_date(root=ROOT):
    """What tools/chart.py derives is as it derives it."""
    for path, text in derivation.derived(root).items():
        if not (root / path).exists() or (root / path).read_text() != text:
            yield f"{path} is out of date: run python tools/chart.py"
    files = root / derivation.CHART / "files"
    kept = {file.relative_to(root) for file in files.rglob("*") if file.is_file()}
    for path in sorted(kept - derivation.derived(root).keys()):
        yield f"{path} is derived from nothing"


def packaged(chart=CHART):
    """The package renders what the folder renders, and Helm warns of nothing."""
    with tempfile.TemporaryDirectory() as place:
        values = merged(LEAST, ACCEPTED["everything"])
        for version, program in programs().items():
            done = run([program, "package", str(chart), "-d", place])
            if done.returncode or done.stderr:
                yield f"Helm {version}: {done.stderr}"
                continue
            (package,) = Path(place).glob("*.tgz")
            if template(version, package, values) != template(version, chart, values):
                yield f"Helm {version}: the package renders something else"
            package.unlink()


def refusals(name):
    """Values that cannot work are refused by both Helms, with the reason."""
    values, reason = REFUSED[name]
    values = merged(LEAST, values)
    for version in programs():
        try:
            template(version, CHART, values)
            yield f"Helm {version} renders them"
        except Refused as refused:
            text = str(refused)
            if reason not in text:
                yield f"Helm {version} says: {text}"
            if "nil pointer" in text or "wrong type" in text:
                yield f"Helm {version} fails before the check: {text}"


def versions_of_kubernetes():
    """What Kubernetes 1.29 lacks is refused there."""
    values = merged(LEAST, ACCEPTED["sidecar"])
    old = ("--kube-version", "1.29.0")
    for version in programs():
        try:
            template(version, CHART, values, old)
            yield f"Helm {version} renders a preStop hook that Kubernetes 1.29 does not know"
        except Refused as refused:
            if "sidecar.envoy.preStopSeconds needs Kubernetes 1.30" not in str(refused):
                yield f"Helm {version} says: {refused}"
        without = merged(values, {"sidecar": {"envoy": {"preStopSeconds": 0}}})
        if "preStop" in template(version, CHART, without, old):
            yield f"Helm {version} renders a hook that waits for nothing"
        template(version, CHART, merged(LEAST, ACCEPTED["everything"]), old)
        try:
            template(version, CHART, LEAST, ("--kube-version", "1.28.9"))
            yield f"Helm {version} renders for Kubernetes 1.28"
        except Refused:
            pass


def rendered(chart, values, files, only=None):
    """Renders the values, and yields an error for each rule that does not hold."""
    objects = parse(template("3", chart, values))
    for rule in RULES:
        if only in (None, rule.__name__):
            for error in rule(objects, values):
                yield f"{rule.__name__}: {error}"
    if only in (None, "settings"):
        for error in settings.check(objects, values, files):
            yield f"settings: {error}"


def found(defect, files):
    """A copy of the chart with a defect does not pass the check that is there for it."""
    check, values, file, before, after = defect
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "patgate"
        shutil.copytree(CHART, copy)
        text = (copy / file).read_text()
        if before not in text:
            yield f"{file} does not have {before!r}"
            return
        (copy / file).write_text(text.replace(before, after))
        if file == "values.yaml":
            # The schema would refuse the defect first.
            (copy / "values.schema.json").unlink()
        values = merged(LEAST, values)
        whole = {one.__name__: one for one in (lint, twice, functions, golden_selectors)}
        whole |= {one.__name__: one for one in (strict_schema, versions, notes, reloads, texts)}
        whole["choices"] = settings.choices
        try:
            if check in whole:
                errors = list(itertools.islice(whole[check](copy, values), 1))
            else:
                errors = list(rendered(copy, values, files, only=check))
        except (Refused, yaml.YAMLError) as error:
            errors = [] if check != "lint" else [str(error)]
        if not errors:
            yield f"{check} does not find that {before!r} became {after!r} in {file}"


def changed_sources():
    """A source that changes after its copy was derived does not pass."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        shutil.copytree(ROOT / "deploy", root / "deploy")
        (root / "docs").mkdir()
        shutil.copy(ROOT / "docs/configuration.md", root / "docs")
        changes = {
            "deploy/observability/alerts.yaml": "files/alerts.yaml",
            "deploy/helm/patgate/values.yaml": "README.md",
        }
        for source, derived in changes.items():
            before = (root / source).read_text()
            (root / source).write_text(before.replace("of ", "about ", 30))
            if not any(derived in error for error in up_to_date(root)):
                yield f"nothing finds that {source} has changed"
            (root / source).write_text(before)


def linked():
    """A link in place of a copy does not pass: Helm would warn the user."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "patgate"
        shutil.copytree(CHART, copy)
        (copy / "files/alerts.yaml").unlink()
        (copy / "files/alerts.yaml").symlink_to(ROOT / "deploy/observability/alerts.yaml")
        try:
            errors = list(packaged(copy))
        except Refused as warned:
            errors = [str(warned)]
        if not errors:
            yield "nothing finds the link"


def main() -> int:
    word = " ".join(sys.argv[1:])
    if word == "--selectors":
        GOLDEN.write_text(json.dumps(made_selectors(CHART), indent=2, sort_keys=True) + "\n")
        return 0
    if not Path(settings.patgate()).exists():
        print(f"{settings.patgate()} does not exist: run make build", file=sys.stderr)
        return 1
    started, failed, passed = time.monotonic(), 0, 0

    def show(name, errors):
        nonlocal failed, passed
        if word not in name:
            return
        try:
            errors = list(errors())
        except (Refused, yaml.YAMLError) as error:
            errors = [str(error)]
        failed, passed = failed + bool(errors), passed + (not errors)
        for error in errors:
            print(f"FAILED {name}: {error}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        files = settings.Files(Path(place))
        show("derived files", up_to_date)
        for check in (
            functions,
            golden_selectors,
            strict_schema,
            versions,
            reloads,
            settings.choices,
        ):
            show(check.__doc__, lambda check=check: check(CHART, LEAST))
        show("lint of the defaults", lambda: lint(CHART, {}))
        show("package", packaged)
        show("versions of Kubernetes", versions_of_kubernetes)
        show("names of releases", releases)
        show("texts", lambda: texts(CHART, {}))
        for name, over in ACCEPTED.items():
            values = merged(LEAST, over)
            show(f"accepted: {name}", lambda values=values: rendered(CHART, values, files))
            for check in (lint, twice, notes):
                title = f"accepted: {name}, {check.__name__}"
                show(title, lambda check=check, values=values: check(CHART, values))
        for name in REFUSED:
            show(f"refused: {name}", lambda name=name: refusals(name))
        show("broken: a changed source", changed_sources)
        show("broken: a link", linked)
        for defect in BROKEN:
            show(f"broken: {defect[0]}, {defect[2]}", lambda defect=defect: found(defect, files))
        unguarded = {rule.__name__ for rule in RULES} - {defect[0] for defect in BROKEN}
        show("each rule has a defect", lambda: [f"none breaks {name}" for name in unguarded])
    took = time.monotonic() - started
    print(f"{passed} passed, {failed} failed, in {took:.0f} s", flush=True)
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
