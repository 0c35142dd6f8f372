"""Structures and elements: from StructureDefinition snapshots to the lines of elements.txt.

Owns: which structures exist, and how one element becomes one line.
Must never: leave out an element of a snapshot (those with max 0 excepted).
Look next: fhirpath.py, which walks these structures.
"""

NUMBERS = {"decimal", "integer", "positiveInt", "unsignedInt"}
BASES = ["Element", "BackboneElement", "Resource", "DomainResource"]
SYSTEM = "http://hl7.org/fhirpath/System."
PROFILE = "http://hl7.org/fhir/StructureDefinition/"


class Element:
    """One element of one structure. `types` are structure names; `targets` those of a Reference."""

    def __init__(self, name, definition, types, targets, rewind):
        self.choice = name.endswith("[x]")
        self.name = name.removesuffix("[x]")
        self.min = definition["min"]
        self.many = definition["max"] != "1"
        self.modifier = definition.get("isModifier", False)
        self.summary = definition.get("isSummary", False)
        self.types = types
        self.targets = targets
        self.rewind = rewind

    def line(self):
        flags = ("!" if self.modifier else "") + ("S" if self.summary else "")
        types = ["@" + self.rewind] if self.rewind else [self._type(name) for name in self.types]
        shown = self.name + ("[x]" if self.choice else "")
        return " ".join([shown, str(self.min), "*" if self.many else "1", flags or "-", *types])

    def _type(self, name):
        return f"Reference({'|'.join(self.targets)})" if name == "Reference" and self.targets else name


class Structure:
    """A resource, data type, backbone element or primitive with its elements in official order."""

    def __init__(self, name, kind):
        self.name = name
        self.kind = kind
        self.elements = []

    def find(self, name):
        return next((element for element in self.elements if element.name == name), None)


def structures(resources):
    """All structures by name: 146 resources, data types, backbone elements, primitives, and the bases."""
    found = {"System.String": Structure("System.String", "text")}
    for definition in resources:
        if definition["resourceType"] != "StructureDefinition" or definition.get("derivation") == "constraint":
            continue
        if definition["kind"] != "logical":
            _read(definition, found)
    return found


def _read(definition, found):
    elements = definition["snapshot"]["element"]
    parents = {element["path"].rpartition(".")[0] for element in elements} - {""}
    root = definition["type"]
    found[root] = Structure(root, _kind(definition))
    for path in sorted(parents - {root}):
        found[path] = Structure(path, "complex")
    for element in elements:
        parent, _, name = element["path"].rpartition(".")
        if not parent or element["max"] == "0":
            continue
        if definition["kind"] == "primitive-type" and (name == "value" or root == "xhtml"):
            continue
        found[parent].elements.append(_element(name, element, parents))


def _kind(definition):
    name, kind = definition["type"], definition["kind"]
    if name in BASES:
        return "any" if name == "Resource" else "base"
    if kind == "primitive-type":
        return "number" if name in NUMBERS else name if name in ("boolean", "xhtml") else "text"
    return {"resource": "resource", "complex-type": "complex"}[kind]


def _element(name, definition, parents):
    path = definition["path"]
    if "contentReference" in definition:
        rewind = definition["contentReference"].removeprefix("#")
        return Element(name, definition, [rewind], [], rewind)
    if path in parents:
        return Element(name, definition, [path], [], None)
    types, targets = [], []
    for declared in definition["type"]:
        code = declared["code"]
        types.append("System.String" if code.startswith(SYSTEM) else code)
        if code == "Reference":
            targets = [profile.removeprefix(PROFILE) for profile in declared.get("targetProfile", [])]
    return Element(name, definition, types, [] if "Resource" in targets else sorted(targets), None)


def render(found):
    """The text of elements.txt: bases, then resources, the abstract Resource, then all others."""
    lines = []
    for base in BASES:
        lines += [f"base {base}"] + [" " + element.line() for element in found[base].elements]
    ranks = {"resource": 0, "any": 1}
    rest = [structure for structure in found.values() if structure.kind != "base"]
    for structure in sorted(rest, key=lambda s: (ranks.get(s.kind, 2), s.name)):
        lines += _structure(structure, found)
    return "".join(line + "\n" for line in lines)


def _structure(structure, found):
    if structure.kind == "any":
        return [f"any {structure.name}"]
    own = [element.line() for element in structure.elements]
    for base in reversed(BASES):
        inherited = [element.line() for element in found[base].elements]
        if own[:len(inherited)] == inherited:
            own = own[len(inherited):]
            return [f"{structure.kind} {structure.name} {base}"] + [" " + line for line in own]
    return [f"{structure.kind} {structure.name}"] + [" " + line for line in own]
