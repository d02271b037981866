"""What an OpenAPI document promises, as flat facts that can be compared one by one.

A fact is a place and what is said about it:

    GET /wallet/vtxos                             operation
    GET /wallet/vtxos ?all                        optional
    GET /wallet/vtxos > 200[].state.type = spent  value
    GET /wallet/vtxos > 200[].exit_depth :        integer null

Schemas are followed wherever they lead, so two documents may cut the same JSON into different components.
Whether a parameter may be null is not a fact: a query has no null.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
Facts = dict[str, str]

METHODS: Final = ("get", "post", "delete", "put", "patch")
NULL: Final = {"type": "null"}
ABSENT: Final = "–"


def facts_of(document: Json) -> Facts:
    return _Reader(document).read()


def operations_of(document: Json) -> dict[tuple[str, str], Json]:
    """Method and path to operation."""
    return {
        (method, path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


class _Reader:
    def __init__(self, document: Json) -> None:
        self._document = document
        self._facts: Facts = {}

    def read(self) -> Facts:
        for (method, path), operation in operations_of(self._document).items():
            self._operation(f"{method.upper()} {path.removeprefix('/api/v1')}", operation)
        return self._facts

    def _operation(self, name: str, operation: Json) -> None:
        self._facts[name] = "operation"
        self._facts[f"{name} id"] = operation["operationId"]
        for tag in operation.get("tags", ()):
            self._facts[f"{name} #{tag}"] = "tag"
        for parameter in operation.get("parameters", ()):
            where = f"{name} ?{parameter['name']}"
            if parameter["in"] == "path":
                where = f"{name} {{{parameter['name']}}}"
            self._facts[where] = "required" if parameter.get("required") else "optional"
            self._facts[f"{where} :"] = " ".join(sorted(self._types(parameter["schema"]) - {"null"}))
        if "requestBody" in operation:
            body = operation["requestBody"]
            self._facts[f"{name} <"] = "required" if body.get("required") else "optional"
            self._content(f"{name} <", body["content"])
        for status, response in operation["responses"].items():
            self._facts[f"{name} > {status}"] = "status"
            self._content(f"{name} > {status}", response.get("content", {}))

    def _content(self, where: str, content: Json) -> None:
        for kind, described in content.items():
            self._facts[f"{where} {kind}"] = "content"
            self._schema(where, described.get("schema", {}))

    def _schema(self, where: str, schema: Json) -> None:
        if types := self._types(schema):
            self._facts[f"{where} :"] = " ".join(sorted(types))
        for value in self._values(schema):
            self._facts[f"{where} = {value}"] = "value"
        required = self._required(schema)
        for name, schemas in self._properties(schema).items():
            self._facts[f"{where}.{name}"] = "required" if name in required else "optional"
            self._schema(f"{where}.{name}", _any_of(schemas))
        items = [part["items"] for part in self._parts(schema) if "items" in part]
        if items:
            self._schema(f"{where}[]", _any_of(items))
        for alternative in self._alternatives(schema):
            self._variant(where, alternative)

    def _variant(self, where: str, alternative: Json) -> None:
        """Fields of one alternative of a tagged union: `(claimed).block`."""
        properties, required = self._properties(alternative), self._required(alternative)
        tag = next((name for name in ("type", "status") if name in properties), None)
        if tag is None:
            return
        for value in self._values(_any_of(properties[tag])):
            for name in properties.keys() - {tag}:
                self._facts[f"{where} ({value}).{name}"] = "required" if name in required else "optional"

    def _alternatives(self, schema: Json) -> Iterator[Json]:
        schema = self._resolve(schema)
        choices = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
        for choice in choices:
            yield from self._alternatives(choice)
        if not choices:
            yield schema

    def _resolve(self, schema: Json) -> Json:
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def _parts(self, schema: Json) -> Iterator[Json]:
        """The schema and everything that it combines: allOf, oneOf, anyOf."""
        schema = self._resolve(schema)
        yield schema
        for key in ("allOf", "oneOf", "anyOf"):
            for part in schema.get(key, ()):
                yield from self._parts(part)

    def _types(self, schema: Json) -> set[str]:
        types: set[str] = set()
        for part in self._parts(schema):
            named = part.get("type", ())
            types |= {named} if isinstance(named, str) else set(named)
        return types

    def _values(self, schema: Json) -> set[str]:
        values: set[str] = set()
        for part in self._parts(schema):
            values |= {str(value) for value in part.get("enum", ()) if value is not None}
            if "const" in part:
                values.add(str(part["const"]))
        return values

    def _properties(self, schema: Json) -> dict[str, list[Json]]:
        found: dict[str, list[Json]] = {}
        for part in self._parts(schema):
            for name, value in part.get("properties", {}).items():
                found.setdefault(name, []).append(value)
        return found

    def _required(self, schema: Json) -> set[str]:
        """Names that are required whichever alternative is chosen."""
        schema = self._resolve(schema)
        names = set(schema.get("required", ()))
        for part in schema.get("allOf", ()):
            names |= self._required(part)
        alternatives = [part for part in (*schema.get("oneOf", ()), *schema.get("anyOf", ())) if part != NULL]
        if alternatives:
            names |= set.intersection(*(self._required(part) for part in alternatives))
        return names


def _any_of(schemas: list[Json]) -> Json:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


@dataclass(frozen=True, slots=True)
class Difference:
    """theirs, ours: what the documents say about the place; ABSENT if nothing."""

    place: str
    theirs: str
    ours: str

    def __str__(self) -> str:
        return f"{self.place} | {self.theirs} | {self.ours}"


def differences(theirs: Facts, ours: Facts, *, with_additions: bool) -> list[Difference]:
    """with_additions: also what only ours has."""
    places = theirs.keys() | ours.keys() if with_additions else theirs.keys()
    return [
        Difference(place, theirs.get(place, ABSENT), ours.get(place, ABSENT))
        for place in sorted(places)
        if theirs.get(place) != ours.get(place)
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the list of differences; in each cell `*` stands for anything."""

    place: str
    theirs: str
    ours: str
    reason: str

    def covers(self, difference: Difference) -> bool:
        return (
            glob(self.place, difference.place)
            and glob(self.theirs, difference.theirs)
            and glob(self.ours, difference.ours)
        )


def glob(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading of a Markdown page, without the backticks."""
    below = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    return [
        [cell.strip().replace("`", "").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
        for row in rows[2:]
    ]
