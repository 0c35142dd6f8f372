"""What a FHIRPath expression reads: a small parser, and an evaluator over structures, not over data.

Owns: the subset of FHIRPath that R4 search parameters use. Must never: guess; anything else raises
NotUnderstood, and the parameter is then refused at run time.
Look next: search.py.
"""

import re

TOKEN = re.compile(r"\s*(?:(?P<string>'[^']*')|(?P<name>%?[A-Za-z_][A-Za-z0-9_]*)|(?P<number>\d+)"
                   r"|(?P<sign>!=|[.()\[\]|=]))")


class NotUnderstood(Exception):
    """The expression uses something outside the subset, or names an element that does not exist."""


class Node:
    """A place in a record: canonical path, possible structures, and what a resolve() guard allows."""

    def __init__(self, path, types, targets=(), guard=None, opaque=False):
        self.path, self.types, self.targets = path, list(types), list(targets)
        self.guard, self.opaque = guard, opaque

    def but(self, **changes):
        node = Node(self.path, self.types, self.targets, self.guard, self.opaque)
        vars(node).update(changes)
        return node


def tokens(text):
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise NotUnderstood(f"character {text[at]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found


class Evaluator:
    """Evaluates one expression for one resource type. `reads` gathers what filters touch."""

    def __init__(self, structures, resource, text):
        self.structures, self.resource = structures, resource
        self.tokens, self.at = tokens(text), 0
        self.reads = set()

    def run(self, focus=None):
        """The resulting nodes. `focus` is where a relative path starts; default: the record itself."""
        nodes = self._any(focus or [self._root()])
        if self.at != len(self.tokens):
            raise NotUnderstood(f"`{self._peek()[1]}`")
        return nodes

    def _root(self):
        return Node(self.resource, [self.resource])

    def _peek(self, ahead=0):
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else (None, "")

    def _accept(self, *values):
        kind, value = self._peek()
        if kind in ("sign", "name") and value in values:
            self.at += 1
            return value
        return None

    def _expect(self, value):
        if not self._accept(value):
            raise NotUnderstood(f"expected `{value}`, found `{self._peek()[1]}`")

    def _take(self, kind):
        found, value = self._peek()
        if found != kind:
            raise NotUnderstood(f"expected a {kind}, found `{value}`")
        self.at += 1
        return value

    # Precedence, loosest first: and/or, = and !=, |, as and is, path steps.
    def _any(self, focus):
        nodes = self._equality(focus)
        while self._accept("and", "or"):
            nodes = nodes + self._equality(focus)
        return nodes

    def _equality(self, focus):
        nodes = self._union(focus)
        while self._accept("=", "!="):
            nodes = nodes + self._union(focus)
        return nodes

    def _union(self, focus):
        nodes = self._typed(focus)
        while self._accept("|"):
            nodes = nodes + self._typed(focus)
        return nodes

    def _typed(self, focus):
        nodes = self._path(focus)
        while True:
            if self._accept("as"):
                nodes = self._as(nodes, self._take("name"))
            elif self._accept("is"):
                nodes = self._is(nodes, self._take("name"))
            else:
                return nodes

    def _path(self, focus):
        nodes = self._term(focus)
        while True:
            if self._accept("."):
                nodes = self._step(nodes)
            elif self._accept("["):
                self._take("number")
                self._expect("]")
            else:
                return nodes

    def _term(self, focus):
        kind, value = self._peek()
        if self._accept("("):
            nodes = self._any(focus)
            self._expect(")")
            return nodes
        if kind in ("string", "number") or value in ("true", "false"):
            self.at += 1
            return []
        if value in (self.resource, "Resource", "DomainResource", "%resource"):
            self.at += 1
            return [self._root()]
        named = self.structures.get(value)
        if kind == "name" and named and named.kind == "resource":
            self.at += 1  # an alternative for another resource type
            return []
        return self._step(focus)

    def _step(self, nodes):
        name = self._take("name")
        if not self._accept("("):
            return [self._child(node, name) for node in nodes]
        step = getattr(self, "_call_" + name, None)
        if step is None:
            raise NotUnderstood(f"function {name}()")
        nodes = step(nodes)
        self._expect(")")
        return nodes

    def _child(self, node, name):
        if node.opaque:
            return node
        for element in filter(None, (self.structures[kind].find(name) for kind in node.types)):
            path = element.rewind or f"{node.path}.{name}"
            return Node(path, element.types, element.targets)
        raise NotUnderstood(f"no element `{name}` in {node.path}")

    def _as(self, nodes, name):
        name = "dateTime" if name == "DateTime" else name  # Observation code-value-date misspells it
        for node in nodes:
            if name not in node.types and not node.opaque:
                raise NotUnderstood(f"{node.path} is never a {name}")
        return [node if node.opaque else node.but(types=[name]) for node in nodes]

    def _is(self, nodes, name):
        if any("resolved" not in node.types for node in nodes):
            raise NotUnderstood("`is` without resolve()")
        return [node.but(guard=name) for node in nodes]

    def _call_as(self, nodes):
        return self._as(nodes, self._take("name"))

    _call_ofType = _call_as

    def _call_exists(self, nodes):
        return nodes

    def _call_resolve(self, nodes):
        return [node.but(types=["resolved"]) for node in nodes]

    def _call_extension(self, nodes):
        url = self._take("string")
        if any("." in node.path and node.opaque for node in nodes):
            return nodes  # an extension inside an extension is decided with the outer one
        return [Node(f"{node.path}.extension({url})", ["Extension"], opaque=True) for node in nodes]

    _call_hasExtension = _call_extension

    def _call_where(self, nodes):
        tested = self._any(nodes)
        guards = {node.path: node.guard for node in tested if node.guard}
        self.reads |= {node.path for node in tested if not node.guard}
        return [node.but(guard=guards.get(node.path, node.guard)) for node in nodes]
