"""Makes r4-search.txt, r4-compartments.txt and r4-mandatory.txt from an unpacked hl7.fhir.r4.core 4.0.1 package (CC0).

Usage: python3 make-tables.py PACKAGE_FOLDER
The expressions stay as HL7 wrote them; only alternatives of other types are left out. Reading them is left to
src/emr/path.rs, which shares nothing with the gate's tables.
"""

import glob
import json
import os
import re
import sys

PROFILE = "http://hl7.org/fhir/StructureDefinition/"


def definitions(folder, kind):
    for name in sorted(glob.glob(os.path.join(folder, kind + "-*.json"))):
        with open(name, encoding="utf-8") as file:
            yield json.load(file)


def alternatives(expression):
    """Splits at `|` outside brackets."""
    depth, start, parts = 0, 0, []
    for at, letter in enumerate(expression):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append(expression[start:at].strip())
            start = at + 1
    return parts + [expression[start:].strip()]


def search_rows(folder):
    parameters = list(definitions(folder, "SearchParameter"))
    by_url = {one["url"]: one for one in parameters}
    rows = {}
    for one in sorted(parameters, key=lambda one: (one.get("experimental", False), one["url"])):
        if "expression" not in one or one["type"] == "special":
            continue
        for base in one["base"]:
            keep = [part for part in alternatives(one["expression"])
                    if re.match(r"[(\s]*([A-Za-z]+)", part).group(1) == base]
            components = [by_url[c["definition"]]["type"] + "=" + c["expression"]
                          for c in one.get("component", [])]
            if not keep:
                continue
            targets = one.get("target", [])
            row = "\t".join([one["type"], ",".join(targets) if len(targets) < 20 else "", " | ".join(keep)] + components)
            rows.setdefault((base, one["code"]), row)
    return [f"{base}\t{code}\t{row}" for (base, code), row in sorted(rows.items())]


def compartment_rows(folder):
    rows = []
    for one in definitions(folder, "CompartmentDefinition"):
        if one["id"] == "example":
            continue
        rows += [f"{one['code']}\t{resource['code']}\t{' '.join(resource['param'])}"
                 for resource in one["resource"] if resource.get("param")]
    return sorted(rows)


def mandatory_rows(folder):
    rows = []
    for one in definitions(folder, "StructureDefinition"):
        if one["kind"] != "resource" or one.get("derivation") != "specialization" or one["abstract"]:
            continue
        paths = [e["path"].split(".", 1)[1] for e in one["snapshot"]["element"]
                 if e["path"].count(".") == 1 and e["min"] > 0]
        rows.append(one["type"] + "\t" + " ".join(paths))
    return sorted(rows)


def main():
    folder, here = sys.argv[1], os.path.dirname(os.path.abspath(__file__))
    tables = {"r4-search": search_rows, "r4-compartments": compartment_rows, "r4-mandatory": mandatory_rows}
    for name, rows in tables.items():
        with open(os.path.join(here, name + ".txt"), "w", encoding="utf-8", newline="\n") as file:
            file.write("".join(row + "\n" for row in rows(folder)))


main()
