"""The checks of deploy/check that are ours. Each command says what it looked at, or what is wrong and where."""

import copy
import json
import pathlib
import re
import sys
import tomllib

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
ROOT = DEPLOY.parent
RULES = DEPLOY / "prometheus/rules.yml"
RULES_TEST = DEPLOY / "prometheus/rules_test.yml"
CHART_RULES = DEPLOY / "helm/portal-audit/rules.yml"
KUSTOMIZE_RULE = DEPLOY / "kustomize/monitoring/prometheusrule.yaml"
OPERATOR = "monitoring.coreos.com/v1"


class Fault(Exception):
    """What is wrong, in one line."""


def need(condition, message):
    if not condition:
        raise Fault(message)


def documents(path):
    return [d for d in yaml.safe_load_all(pathlib.Path(path).read_text()) if d]


def metrics():
    """The contract with the program: name to type and labels."""
    found, names = {}, []
    for number, line in enumerate((DEPLOY / "metrics.txt").read_text().splitlines(), 1):
        if line.startswith("#"):
            continue
        fields = line.split(" ", 3)
        need(len(fields) == 4, f"metrics.txt:{number}: name, type, labels, help")
        name, kind, labels, _ = fields
        need(kind in ("gauge", "counter", "histogram"), f"metrics.txt:{number}: type {kind}")
        need((kind == "counter") == name.endswith("_total"), f"metrics.txt:{number}: a counter, and nothing else, ends in _total")
        found[name] = (kind, set() if labels == "-" else set(labels.split(",")))
        names.append(name)
    need(names == sorted(set(names)), "metrics.txt is not in the order of its names, or names one twice")
    return found


METRIC = re.compile(r"\b((?:portal_audit|process)_[a-z0-9_]+)\b(?:\{([^}]*)\})?")


def look_up(expression, where, known):
    """Each metric of an expression, and each label that it is asked for, is one that the program has."""
    count = 0
    for name, matchers in METRIC.findall(expression):
        base = name
        for end in ("_bucket", "_sum", "_count"):
            if name.endswith(end) and known.get(name.removesuffix(end), ("",))[0] == "histogram":
                base = name.removesuffix(end)
        need(base in known, f"{where}: metrics.txt has no {name}")
        kind, labels = known[base]
        need(kind != "histogram" or base != name, f"{where}: {name} is a histogram: ask for _bucket, _sum or _count")
        for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers or ""):
            need(label in labels | {"job", "instance", "namespace", "pod", "le"}, f"{where}: {name} has no label {label}")
        count += 1
    return count


def slug(heading):
    """A heading's anchor, as repository sites make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def generated():
    """The two copies of the rules."""
    body = RULES.read_text()
    head = "# Made from deploy/prometheus/rules.yml by deploy/check --write.\n"
    operator = (
        head + f"apiVersion: {OPERATOR}\nkind: PrometheusRule\nmetadata:\n  name: portal-audit\nspec:\n"
        + "".join(f"  {line}\n" if line else "\n" for line in body.splitlines() if not line.startswith("#"))
    )
    return {CHART_RULES: head + "".join(f"{l}\n" for l in body.splitlines() if not l.startswith("#")), KUSTOMIZE_RULE: operator}


def write():
    for path, text in generated().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


def rules():
    known = metrics()
    for path, text in generated().items():
        need(path.read_text() == text, f"{path.relative_to(ROOT)} is not what rules.yml makes: run deploy/check --write")
    anchors = {slug(h) for h in re.findall(r"^#+ (.*)$", (DEPLOY / "RUNBOOK.md").read_text(), re.M)}
    groups = documents(RULES)[0]["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    asked = 0
    for name, rule in alerts.items():
        asked += look_up(rule["expr"], name, known)
        need(rule["labels"].get("severity") in ("critical", "warning"), f"{name}: severity is critical or warning")
        for key in ("summary", "description", "runbook_url"):
            need(rule["annotations"].get(key), f"{name} has no {key}")
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        need(path == "deploy/RUNBOOK.md" and anchor in anchors, f"{name}: RUNBOOK.md has no heading for #{anchor}")
    fires, silent = set(), set()
    for test in documents(RULES_TEST)[0]["tests"]:
        for case in test.get("alert_rule_test", []):
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
        for series in test["input_series"]:
            look_up(series["series"], f"rules_test.yml: {test.get('name')}", known)
    for name in alerts:
        need(name in fires, f"rules_test.yml has no case in which {name} fires")
        need(name in silent, f"rules_test.yml has no case in which {name} is silent")
    need(fires | silent == set(alerts), f"rules_test.yml tests what is no alert: {(fires | silent) - set(alerts)}")
    print(f"{len(alerts)} alerts, {asked} metrics of theirs, {len(known)} metrics in all; both copies of the rules are equal")


def versions():
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    chart = documents(DEPLOY / "helm/portal-audit/Chart.yaml")[0]
    base = (DEPLOY / "kustomize/base/kustomization.yaml").read_text()
    places = {
        "Chart.yaml": chart["appVersion"],
        "Chart.yaml (version)": chart["version"],
        "kustomize/base": re.search(r"app.kubernetes.io/version: (\S+)", base)[1],
        "kustomize/monitoring": re.search(r"app.kubernetes.io/version: (\S+)", (DEPLOY / "kustomize/monitoring/kustomization.yaml").read_text())[1],
        "kustomize/base/deployment.yaml": re.search(r"image: portal-audit:(\S+)", (DEPLOY / "kustomize/base/deployment.yaml").read_text())[1],
        "compose.yaml": re.search(r"image: portal-audit:(\S+)", (DEPLOY / "compose/compose.yaml").read_text())[1],
        "kustomize/example": re.search(r"newTag: (\S+)", (DEPLOY / "kustomize/example/kustomization.yaml").read_text())[1],
        "Dockerfile": re.search(r"-t portal-audit:(\S+)", (DEPLOY / "Dockerfile").read_text())[1],
    }
    for place, version in places.items():
        need(str(version) == cargo, f"{place} says {version}, Cargo.toml {cargo}")
    print(f"{len(places)} places say {cargo}")


def image():
    """What the build needs is copied and not ignored."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = [p for line in re.findall(r"^COPY (?!--)(.*)$", dockerfile, re.M) for p in line.split()[:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    need(sorted(copied) == sorted(kept), f"the Dockerfile copies {sorted(copied)}, .dockerignore keeps {sorted(kept)}")
    included = set()
    for path in (ROOT / "src").rglob("*.rs"):
        for name in re.findall(r"include_(?:str|bytes)!\(\s*\"([^\"]+)\"", path.read_text()):
            included.add((path.parent / name).resolve().relative_to(ROOT))
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    for kind in ("test", "bench", "bin", "example"):
        included |= {pathlib.Path(target["path"]) for target in cargo.get(kind, []) if "path" in target}
        if kind == "bench":
            included |= {pathlib.Path(f"benches/{t['name']}.rs") for t in cargo.get(kind, []) if "path" not in t}
    for name in sorted(included):
        need((ROOT / name).exists(), f"{name} is not there")
        need(any(name == pathlib.Path(c) or pathlib.Path(c) in name.parents for c in copied), f"the image's build lacks {name}")
    need(not any(line.startswith("FROM") and "build" not in line and "scratch" not in line for line in dockerfile.splitlines()), "the last stage is not scratch")
    need(re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", dockerfile, re.M), "the image's user is no number")
    print(f"{len(included)} files that the build reads are copied")


def pod(documents_):
    [deployment] = [d for d in documents_ if d["kind"] == "Deployment"]
    return deployment, deployment["spec"]["template"]["spec"]


def settings_of(documents_):
    [config] = [d for d in documents_ if d["kind"] == "ConfigMap"]
    return tomllib.loads(config["data"]["portal-audit.toml"])


def restricted(documents_, fixed_ids=False):
    """The profile "restricted" of Kubernetes' pod security standards, and no fixed user or group."""
    deployment, spec = pod(documents_)
    context = spec["securityContext"]
    need(context.get("runAsNonRoot") is True, "runAsNonRoot is not set")
    need(context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"), "seccompProfile")
    need(spec.get("automountServiceAccountToken") is False, "the service account's token is mounted")
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        need(not spec.get(key), key)
    for volume in spec["volumes"]:
        kind = set(volume) - {"name"}
        need(kind <= {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "persistentVolumeClaim", "csi", "ephemeral"}, f"volume {volume['name']}: {kind}")
    contexts = [context]
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container["securityContext"]
        contexts.append(own)
        need(own.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation")
        need(own.get("capabilities", {}).get("drop") == ["ALL"] and not own["capabilities"].get("add"), "capabilities")
        need(own.get("readOnlyRootFilesystem") is True, "the root filesystem is writable")
        need(not own.get("privileged"), "privileged")
        need(not any(port.get("hostPort") for port in container.get("ports", [])), "hostPort")
    ids = {key for c in contexts for key in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups") if key in c}
    need(fixed_ids or not ids, f"fixed in the defaults: {ids}")
    need(0 not in [c.get("runAsUser") for c in contexts], "runs as root")
    need(deployment["spec"]["replicas"] == 1 and deployment["spec"]["strategy"] == {"type": "Recreate"}, "a slot has one reader")


def fits(documents_):
    """Settings and pod agree: what the settings name is mounted, what they open is a port, the drain has its time."""
    _, spec = pod(documents_)
    settings = settings_of(documents_)
    [container] = spec["containers"]
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in spec["volumes"]}
    spool = mounts.get(settings["limits"]["spool_folder"])
    need(spool and "emptyDir" in volumes[spool["name"]] and not spool.get("readOnly"), "spool_folder is no emptyDir")
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    need(settings["serve"]["listen"] == f"0.0.0.0:{ports['http']}", "what listens is not the port")
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        need(container[probe]["httpGet"] == {"path": path, "port": "http"}, probe)
    need(spec["terminationGracePeriodSeconds"] > 8, "the drain may take 8 s")
    config = container["args"][container["args"].index("--config") + 1]
    folder = mounts[str(pathlib.PurePath(config).parent)]
    [map_] = [d for d in documents_ if d["kind"] == "ConfigMap"]
    need(volumes[folder["name"]]["configMap"]["name"] == map_["metadata"]["name"], "the settings are not mounted")
    for dsn in [settings["audit"]["dsn"]] + [s["dsn"] for s in settings["source"]]:
        need("sslmode=verify-full" in dsn and "password=" not in dsn, f"not verify-full with a passfile: {dsn}")
        for path in re.findall(r"(?:passfile|sslrootcert|sslcert|sslkey)=(\S+)", dsn):
            mount = mounts.get(str(pathlib.PurePath(path).parent))
            need(mount and "secret" in volumes[mount["name"]], f"{path} is not mounted from a Secret")
            need(volumes[mount["name"]]["secret"]["defaultMode"] == 0o440, f"{path}: others may read it")
    for policy in (d for d in documents_ if d["kind"] == "NetworkPolicy"):
        need(policy["spec"]["podSelector"]["matchLabels"].items() <= spec_labels(documents_).items(), "the NetworkPolicy selects other pods")
    for monitor in (d for d in documents_ if d["kind"] == "PodMonitor"):
        need(monitor["spec"]["selector"]["matchLabels"].items() <= spec_labels(documents_).items(), "the PodMonitor selects other pods")
        need(monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports, "the PodMonitor's port")


def spec_labels(documents_):
    deployment, _ = pod(documents_)
    return deployment["spec"]["template"]["metadata"]["labels"]


def plain(documents_):
    """The objects without what must differ: who made them, and how a change of the settings rolls the pod."""
    objects = {}
    for document in copy.deepcopy(documents_):
        def tidy(value):
            if isinstance(value, dict):
                for key in ("helm.sh/chart", "app.kubernetes.io/managed-by", "checksum/config"):
                    value.pop(key, None)
                return {k: t for k, v in value.items() if (t := tidy(v)) not in ({}, None)}
            if isinstance(value, list):
                return [tidy(v) for v in value]
            if isinstance(value, str):
                return re.sub(r"^(portal-audit)-[a-z0-9]{10}$", r"\1", value).rstrip("\n")
            return value
        document = tidy(document)
        objects[document["kind"], document["metadata"]["name"]] = document
    return objects


def differences(left, right, path=""):
    if type(left) is not type(right):
        return [f"{path}: {left!r} and {right!r}"]
    if isinstance(left, dict):
        return [d for key in sorted(left.keys() | right.keys(), key=str) for d in differences(left.get(key), right.get(key), f"{path}/{key}")]
    if isinstance(left, list):
        if len(left) != len(right):
            return [f"{path}: {len(left)} and {len(right)} entries"]
        return [d for i, (l, r) in enumerate(zip(left, right)) for d in differences(l, r, f"{path}/{i}")]
    return [] if left == right else [f"{path}: {left!r} and {right!r}"]


def same(helm, kustomize):
    left, right = plain(documents(helm)), plain(documents(kustomize))
    found = differences(left, right)
    need(not found, "chart and kustomize differ:\n  " + "\n  ".join(found))
    print(f"{len(left)} objects of chart and kustomize are the same: {', '.join(kind for kind, _ in left)}")


def must_refuse(what, check, documents_, change):
    """A check that finds nothing wrong in what is wrong is no check."""
    broken = copy.deepcopy(documents_)
    change(broken)
    try:
        check(broken)
    except (Fault, KeyError):
        return
    raise Fault(f"the check does not notice: {what}")


def pods(*paths):
    for path in paths:
        fixed = path.endswith("+ids")
        found = documents(path.removesuffix("+ids"))
        try:
            restricted(found, fixed_ids=fixed)
            fits(found)
        except (Fault, KeyError) as fault:
            raise Fault(f"{path}: {fault!r}") from fault
    found = documents(paths[0])
    at = lambda d: pod(d)[1]
    must_refuse("a fixed user", restricted, found, lambda d: at(d)["securityContext"].update(runAsUser=1000))
    must_refuse("a writable root", restricted, found, lambda d: at(d)["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"))
    must_refuse("kept capabilities", restricted, found, lambda d: at(d)["containers"][0]["securityContext"].pop("capabilities"))
    must_refuse("a second reader", restricted, found, lambda d: pod(d)[0]["spec"].update(replicas=2))
    must_refuse("no folder for large transactions", fits, found, lambda d: at(d)["containers"][0]["volumeMounts"].pop())
    must_refuse("a probe that asks a database", fits, found, lambda d: at(d)["containers"][0]["livenessProbe"]["httpGet"].update(path="/readyz"))
    print(f"{len(paths)} renderings are restricted, and their settings fit the pod; 6 broken ones were refused")


def operator_objects(*paths):
    """As JSON lines, for crds.mjs."""
    for path in paths:
        for document in documents(path):
            if document["apiVersion"] == OPERATOR:
                print(json.dumps(document))


def core_objects(path, to):
    kept = [d for d in documents(path) if d["apiVersion"] != OPERATOR]
    need(kept, f"{path} renders nothing")
    pathlib.Path(to).write_text(yaml.safe_dump_all(kept))


def samples():
    """The settings of the examples are those of the defaults, but for hosts and secrets."""
    values = documents(DEPLOY / "helm/portal-audit/values.yaml")[0]["config"]["portal-audit.toml"]
    base = (DEPLOY / "kustomize/base/portal-audit.toml").read_text()
    need(values == base, "values.yaml and kustomize/base have different settings")
    compose = documents(DEPLOY / "compose/compose.yaml")[0]["services"]["portal-audit"]
    settings = tomllib.loads((DEPLOY / "compose/portal-audit.toml").read_text())
    need(any(t.startswith(settings["limits"]["spool_folder"] + ":") for t in compose["tmpfs"]), "compose: spool_folder is no tmpfs")
    need(compose["ports"][0].endswith(settings["serve"]["listen"].rpartition(":")[2]), "compose: the port")
    need(compose["ports"][0].startswith("127.0.0.1:"), "compose opens a port to the network")
    for dsn in [settings["audit"]["dsn"]] + [s["dsn"] for s in settings["source"]]:
        host = re.search(r"host=(\S+)", dsn)[1]
        need(host in documents(DEPLOY / "compose/compose.yaml")[0]["services"], f"compose has no service {host}")
        need("passfile=/run/secrets/pgpass" in dsn and "pgpass" in compose["secrets"], "compose: the passfile")
    unit = (DEPLOY / "systemd/portal-audit.service").read_text()
    for line in ("Type=notify", "WatchdogSec=60", "DynamicUser=yes", "StateDirectory=portal-audit", "RestartPreventExitStatus=2", "ExecReload=/bin/kill -HUP $MAINPID"):
        need(f"\n{line}\n" in unit, f"the unit lacks {line}")
    print("settings of chart, kustomize, compose and unit agree")


CNPG = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "/metadata": {"name"},
    "/spec": {"instances", "imageName", "storage", "bootstrap", "postgresql", "replicationSlots", "managed"},
    "/spec/storage": {"size"},
    "/spec/bootstrap": {"initdb"},
    "/spec/bootstrap/initdb": {"database", "owner"},
    "/spec/postgresql": {"parameters", "pg_hba"},
    "/spec/replicationSlots": {"highAvailability"},
    "/spec/replicationSlots/highAvailability": {"enabled", "synchronizeLogicalDecoding"},
    "/spec/managed": {"roles"},
    "/spec/managed/roles/[]": {"name", "ensure", "login", "replication", "inherit", "connectionLimit", "passwordSecret"},
    "/spec/managed/roles/[]/passwordSecret": {"name"},
}


def cloudnativepg(rendered):
    """No package has the operator's schema: the keys are compared with those that its manual names, and names with ours."""
    def walk(value, path):
        if isinstance(value, list):
            for entry in value:
                walk(entry, f"{path}/[]")
        elif isinstance(value, dict) and path != "/spec/postgresql/parameters":
            need(path in CNPG, f"cloudnativepg: {path} is not known")
            need(set(value) <= CNPG[path], f"cloudnativepg: {path}: {set(value) - CNPG[path]}")
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
    clusters = {}
    for file in ("cluster.yaml", "audit.yaml"):
        [cluster] = documents(DEPLOY / "cloudnativepg" / file)
        need(cluster["apiVersion"] == "postgresql.cnpg.io/v1" and cluster["kind"] == "Cluster", file)
        walk(cluster, "")
        clusters[f"{cluster['metadata']['name']}-rw"] = cluster
    found = documents(rendered)
    settings = settings_of(found)
    for dsn in [settings["audit"]["dsn"]] + [s["dsn"] for s in settings["source"]]:
        part = dict(re.findall(r"(\w+)=(\S+)", dsn))
        need(part["host"] in clusters, f"cloudnativepg: no cluster of {part['host']}")
        cluster = clusters[part["host"]]["spec"]
        need(part["dbname"] == cluster["bootstrap"]["initdb"]["database"], f"cloudnativepg: database {part['dbname']}")
        need(part["user"] in [r["name"] for r in cluster["managed"]["roles"]], f"cloudnativepg: role {part['user']}")
        need(part["sslrootcert"] == f"/run/secrets/{part['host'].removesuffix('-rw')}-ca/ca.crt", "cloudnativepg: the authority")
    source = clusters["portal-db-rw"]["spec"]
    need(source["postgresql"]["parameters"]["wal_level"] == "logical", "cloudnativepg: wal_level")
    keep = int(source["postgresql"]["parameters"]["max_slot_wal_keep_size"].removesuffix("GB")) << 30
    need(keep > settings["limits"]["wal_budget_bytes"], "cloudnativepg: max_slot_wal_keep_size is not above the budget")
    print("clusters, roles, databases and authorities of the CloudNativePG example agree")


def dashboards():
    known = metrics()
    panels = asked = 0
    uids = set()
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        text = path.read_text()
        board = json.loads(text)
        need(json.dumps(board, indent=2, ensure_ascii=False) + "\n" == text, f"{path.name} is not written with two spaces of indent")
        need(not re.search(r"https?://", text), f"{path.name} names an address: dashboards work without internet")
        need(board["uid"] not in uids, f"{path.name}: uid {board['uid']} is taken")
        uids.add(board["uid"])
        variables = {v["name"]: v for v in board["templating"]["list"]}
        ids = [p["id"] for p in board["panels"]]
        need(len(ids) == len(set(ids)), f"{path.name}: panels share an id")
        for panel in board["panels"]:
            where = f"{path.name}: {panel['title']}"
            grid = panel["gridPos"]
            need(grid["x"] + grid["w"] <= 24, f"{where} is wider than the page")
            if panel["type"] == "geomap":
                need(panel["options"]["basemap"]["config"].get("src", "").startswith("public/") or panel["options"]["basemap"]["type"] == "geojson", f"{where}: the base map is not Grafana's own")
            for target in panel.get("targets", []):
                panels += 1
                source = target["datasource"]
                need(source["uid"] in ("${audit}", "${metrics}"), f"{where}: data source {source['uid']}")
                need(source["uid"][2:-1] in variables, f"{where}: no variable for its data source")
                if source["type"] == "prometheus":
                    asked += look_up(target["expr"], where, known)
                else:
                    need(source["type"] == "grafana-postgresql-datasource", f"{where}: {source['type']}")
                    need("FROM events" not in target["rawSql"] or "timestamp" in target["rawSql"], f"{where}: all of events")
    known_types = {"datasource", "textbox", "query"}
    need(panels > 0, "no panel was found")
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            need(variable["type"] in known_types, f"{path.name}: variable {variable['name']}")
    print(f"{len(uids)} dashboards, {panels} queries, {asked} metrics")


COMMANDS = {
    "write": write, "rules": rules, "versions": versions, "image": image, "same": same, "pods": pods, "operator": operator_objects,
    "core": core_objects, "samples": samples, "cloudnativepg": cloudnativepg, "dashboards": dashboards,
}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except Fault as fault:
        sys.exit(f"deploy/check: {fault}")
