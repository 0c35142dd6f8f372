"""Search parameters and compartments: which elements each parameter reads for each type.

Owns: the lines of search-parameters.txt, compartment.txt and compartments.txt. Must never: drop a parameter silently;
one that is not understood is written with `?` and refused at run time.
Look next: README.md lists those that are not understood, and why.
"""

from fhirpath import Evaluator, NotUnderstood

# Examples of how to write a definition, published next to the real ones.
EXAMPLES = {"example", "example-extension", "example-reference"}

# Published without an expression, and plain from their descriptions: `age` compares the time since birth and
# leaves the deceased out; `birthOrderBoolean` asks whether there was a multiple birth; `_text` compares the
# narrative, which can repeat any element; `_content` compares all text of the record. A type's own name is the
# whole record. `_filter` and `_query` stay without: what they read is in their values.
DESCRIBED = {
    "age": "Patient.birthDate | Patient.deceased",
    "birthOrderBoolean": "Patient.multipleBirth",
    "_text": "Resource",
    "_content": "Resource",
}

# Never the target of a reference; the official "any resource" lists leave it out.
TRANSIENT = {"Parameters"}


class Parameter:
    """One search parameter for one resource type."""

    def __init__(self, resource, definition):
        self.resource, self.code, self.kind = resource, definition["code"], definition["type"]
        self.reads, self.targets, self.components, self.nodes = [], [], [], []
        self.reason = None

    def line(self):
        reads = "?" if self.reason else " ".join(self.reads)
        fields = [self.code, self.kind, reads, " ".join(self.targets), " ".join(self.components)]
        return "\t".join(fields).rstrip("\t")


class Reader:
    """Turns definitions into parameters."""

    def __init__(self, resources, structures):
        self.structures = structures
        self.types = sorted(name for name, found in structures.items() if found.kind == "resource")
        found = [one for one in resources if one["resourceType"] == "SearchParameter"]
        self.left_out = sorted(one["id"] for one in found if one["id"] in EXAMPLES or not one.get("base"))
        self.definitions = [one for one in found if one["id"] not in self.left_out]
        self.by_url = {one["url"]: one for one in self.definitions}

    def parameters(self):
        """By (type, code), sorted. Two definitions for one pair are an error."""
        found = {}
        for definition in self.definitions:
            for resource in self._applies_to(definition):
                key = (resource, definition["code"])
                if key in found:
                    raise ValueError(f"two search parameters {key}")
                found[key] = self._parameter(resource, definition)
        return dict(sorted(found.items()))

    def _applies_to(self, definition):
        for base in definition["base"]:
            if base == "Resource":
                yield from self.types
            elif base == "DomainResource":
                yield from (name for name in self.types if self.structures[name].find("text"))
            else:
                yield base

    def _parameter(self, resource, definition):
        parameter = Parameter(resource, definition)
        try:
            expression = definition.get("expression") or DESCRIBED.get(parameter.code)
            if expression is None:
                raise NotUnderstood("no expression")
            nodes, touched = self._evaluate(resource, expression, None)
            if parameter.kind == "composite":
                touched |= self._components(parameter, definition, nodes)
            else:
                parameter.nodes = nodes
                touched |= {read(node, parameter.kind) for node in nodes}
            parameter.reads = sorted(touched)
            if parameter.kind == "reference":
                parameter.targets = self._targets(nodes, definition.get("target", []))
            if not parameter.reads:
                raise NotUnderstood("reads nothing")
        except NotUnderstood as error:
            parameter.reason = str(error)
        return parameter

    def _evaluate(self, resource, expression, focus):
        evaluator = Evaluator(self.structures, resource, expression)
        nodes = evaluator.run(focus)
        if not nodes:
            raise NotUnderstood("no alternative for this type")
        return nodes, evaluator.reads

    def _components(self, parameter, definition, focus):
        touched = set()
        for component in definition["component"]:
            part = self.by_url.get(component["definition"])
            if part is None:
                raise NotUnderstood(f"component {component['definition']}")
            nodes, filters = self._evaluate(parameter.resource, component["expression"], focus)
            touched |= filters | {read(node, part["type"]) for node in nodes}
            parameter.components.append(part["code"])
        return touched

    def _targets(self, nodes, declared):
        """What the definition declares, narrowed by the elements and their guards; all = any = []."""
        reached = set()
        for node in nodes:
            if node.guard:
                reached.add(node.guard)
            elif node.types == ["Reference"] and node.targets:
                reached |= set(node.targets)
            else:
                reached |= set(declared or self.types)
        narrowed = reached & set(declared) if declared else reached
        chosen = sorted(narrowed or reached)
        return [] if set(self.types) - set(chosen) <= TRANSIENT else chosen


def read(node, kind):
    """The path a parameter of this kind reads at a node. A reference parameter compares only `.reference`."""
    if kind != "reference" or node.opaque or "Reference" not in node.types:
        return node.path
    return node.path if {"canonical", "uri"} & set(node.types) else node.path + ".reference"


def render(parameters):
    lines, resource = [], None
    for (name, _), parameter in parameters.items():
        if name != resource:
            lines.append(f"@{name}")
            resource = name
        lines.append(parameter.line())
    return "".join(line + "\n" for line in lines)


def compartment(resources, parameters):
    """compartment.txt: type, then its Reference elements whose Patient targets give membership."""
    rows = [row for row in _memberships(resources, parameters) if row[0] == "Patient"]
    return "".join(" ".join([member, *paths]) + "\n" for _, member, _, paths in rows)


def compartments(resources, parameters):
    """compartments.txt: owner, type, the parameters that give membership, the elements they end at."""
    rows = _memberships(resources, parameters)
    return "".join("\t".join([owner, member, " ".join(codes), " ".join(paths)]) + "\n"
                   for owner, member, codes, paths in rows)


def _memberships(resources, parameters):
    """(owner, type, codes, paths), sorted. `{def}`: a record of the owner's type is in its own compartment."""
    rows = []
    for official in (one for one in resources if one["resourceType"] == "CompartmentDefinition"):
        if official["id"] in EXAMPLES:
            continue
        owner = official["code"]
        for entry in official["resource"]:
            member, codes, paths = entry["code"], entry.get("param", []), set()
            for code in codes:
                own = code == "{def}"
                paths |= {f"{member}.id"} if own else _members(parameters[(member, code)], owner)
            if paths:
                rows.append((owner, member, sorted(codes), sorted(paths)))
    return sorted(rows)


def _members(parameter, owner):
    if parameter.reason:
        raise ValueError(f"compartment needs {parameter.resource} {parameter.code}: {parameter.reason}")
    found = set()
    for node in parameter.nodes:
        if "Reference" not in node.types:
            raise ValueError(f"compartment: {node.path} is no Reference")
        if node.guard == owner or (not node.guard and (not node.targets or owner in node.targets)):
            found.add(node.path)
    return found
