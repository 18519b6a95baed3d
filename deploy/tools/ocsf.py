"""Holds events of OCSF, one a line, against the JSON schema of release 1.5.0. Says what is wrong, and ends with 1 if anything is."""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.5.0"


def main(path):
    schema = get_ocsf_schema(version=VERSION)
    names = {known["uid"]: name for name, known in schema["classes"].items()}
    embedded = OcsfJsonSchemaEmbedded(schema)
    validators, seen, faults = {}, set(), 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            event = json.loads(line)
            uid = event["class_uid"]
            if uid not in validators:
                validators[uid] = Draft202012Validator(embedded.get_class_schema(class_name=names[uid]))
            seen.add(event["metadata"]["event_code"])
            for fault in validators[uid].iter_errors(event):
                faults += 1
                print(f"{path}:{number}: {event['metadata']['event_code']}: {fault.json_path}: {fault.message[:200]}", file=sys.stderr)
    print(f"{len(seen)} event types in {len(validators)} classes of OCSF {VERSION}: {faults} errors")
    return 1 if faults or not seen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
