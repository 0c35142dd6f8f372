"""What every Python client is asked to do, and what must come of it. A client gives six functions; this module knows
no FHIR library. Environment: CHARTGATE_BASE (the gate's base URL), CHARTGATE_TOKEN (a bearer token).
Prints one JSON line: the `Type/id` of what was created, updated and deleted, for the trail to be compared with."""

import json
import os

BASE = os.environ["CHARTGATE_BASE"]
TOKEN = os.environ["CHARTGATE_TOKEN"]
PEOPLE = 5


def same(seen, wanted, what):
    if seen != wanted:
        raise SystemExit(f"{what}: {seen!r} is not {wanted!r}")


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


def journey(family, create, read, update, remove, search, is_missing):
    """`create`, `read` and `update` give a record as a dict; `search` those of all pages, two on each page, following
    the links it is given; `is_missing(id)` is true when reading says that there is no such record."""
    made = []
    for number in range(PEOPLE):
        person = {
            "resourceType": "Patient", "active": True, "name": [{"family": family, "given": [f"Test-{number}"]}],
            "gender": "other", "birthDate": f"197{number}-01-02",
            "telecom": [{"system": "phone", "value": f"555-010{number}"}],
        }
        kept = create(person)
        same(bool(kept["id"] and kept["meta"]["versionId"]), True, "a created record has an id and a version")
        same(without(kept, "id", "meta"), person, "created")
        made.append(kept)
    first = made[0]
    same(read(first["id"]), first, "read")

    found = search(family)
    same(sorted(one["id"] for one in found), sorted(one["id"] for one in made), "each record once")
    same([one for one in found if one["id"] == first["id"]], [first], "found as it is read")

    changed = update({**first, "birthDate": "1969-12-31"})
    same(changed["birthDate"], "1969-12-31", "updated")
    same(changed["meta"]["versionId"] == first["meta"]["versionId"], False, "the version stays")
    same(without(read(first["id"]), "meta"), {**without(first, "meta"), "birthDate": "1969-12-31"}, "read again")

    for one in made:
        remove(one["id"])
    same(is_missing(first["id"]), True, "a deleted record is missing")
    same(search(family), [], "searched after deletion")
    references = [f"Patient/{one['id']}" for one in made]
    print(json.dumps({"created": references, "updated": references[:1], "deleted": references}))
