#!/usr/bin/env python3
"""Validates OCSF events, one JSON object a line on standard input, with the schemas of `ocsf-json-schema`.

Prints `ok EVENTS CLASSES`, or what is wrong with exit status 1. Stricter than the schemas in one thing: a
top-level attribute that the class does not have is an error.
"""
import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
validators = {}
bad = count = 0
for number, line in enumerate(sys.stdin, 1):
    event = json.loads(line)
    count += 1
    uid = event["class_uid"]
    if uid not in validators:
        name = schemas.lookup_class_name_from_uid(class_uid=uid)
        schema = schemas.get_class_schema(class_name=name, profiles=["host", "security_control"])
        validators[uid] = Draft202012Validator(schema)
    errors = [f"{error.json_path}: {error.message}" for error in validators[uid].iter_errors(event)]
    errors += [f"$.{key}: is not in the class" for key in event if key not in validators[uid].schema["properties"]]
    if event["type_uid"] != uid * 100 + event["activity_id"]:
        errors.append("$.type_uid: does not fit")
    for error in errors:
        bad += 1
        print(f"event {number} ({event['metadata']['event_code']}, class {uid}): {error[:300]}")
print(f"bad: {bad} errors" if bad else f"ok {count} {len(validators)}")
sys.exit(bool(bad))
