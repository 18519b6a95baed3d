// Checks PodMonitor and PrometheusRule objects, given as JSON lines on standard input, against the operator's schemas.
// The schemas say nothing of a key that they do not know, so each key that they never looked at is a fault too.
// usage: node crds.mjs NODE_MODULES <objects.jsonl
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const schemas = {
  PodMonitor: "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1PodMonitor",
  PrometheusRule: "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1PrometheusRule",
};
// The object's own metadata are Kubernetes' business, and checked with the other objects.
const ours = new Set(["metadata", "apiVersion", "kind"]);

// Notes every key that the validator reads.
function watched(value, read) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, key) {
      if (typeof key !== "string" || !Object.hasOwn(target, key)) return target[key];
      const at = Array.isArray(target) ? "[]" : key;
      const next = (read[at] ??= {});
      return watched(target[key], next);
    },
  });
}

function unread(value, read, path) {
  if (value === null || typeof value !== "object") return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const at = Array.isArray(value) ? "[]" : key;
    if (path === "" && ours.has(key)) return [];
    return at in read ? unread(inner, read[at], `${path}/${key}`) : [`${path}/${key} is not known`];
  });
}

const [modules] = process.argv.slice(2);
let faults = 0;
let objects = 0;
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const object = JSON.parse(line);
  const file = `${modules}/@kubernetes-models/prometheus-operator/_schemas/${schemas[object.kind]}.js`;
  const { validate } = await import(pathToFileURL(file).href);
  const read = {};
  const found = validate(watched(object, read)) ? [] : validate.errors.map((e) => `${e.instancePath} ${e.message ?? e.keyword}`);
  for (const fault of [...found, ...unread(object, read, "")]) {
    console.error(`${object.kind} ${object.metadata.name}: ${fault}`);
    faults += 1;
  }
  objects += 1;
}
console.log(`${objects} objects of the Prometheus operator, ${faults} faults`);
process.exit(objects > 0 && faults === 0 ? 0 : 1);
