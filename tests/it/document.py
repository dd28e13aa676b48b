"""The OpenAPI document of a running dmsrd, and whether what the daemon says and takes is what the document says."""
import copy
import re

import jsonschema


def closed(schema):
    """A copy in which no object may have a key that is not named. The document itself leaves its answers open: a client is to bear what a later version adds."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: value if key in ("examples", "if", "then") else closed(value) for key, value in schema.items()}
    if out.get("type") == "object" and "properties" in out and not {"additionalProperties", "unevaluatedProperties"} & set(out):
        out["additionalProperties"] = False
    return out


class Document:
    def __init__(self, json):
        self.json = json
        schemas = json["components"]["schemas"]
        # a connector's part is open, for whoever refers to it says what stands beside it
        self.schemas = {name: copy.deepcopy(s) if "-" in name else closed(s) for name, s in schemas.items()}
        self.operations = {(method.upper(), path): what for path, methods in json["paths"].items() for method, what in methods.items()}
        # a literal path stands before one that would take it, too
        self.paths = [(path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + r"$")) for path in sorted(json["paths"], key=lambda p: p.count("{"))]

    def errors(self, schema, value):
        check = jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": {"schemas": self.schemas}})
        return [f"{schema}{''.join(f'/{part}' for part in e.absolute_path)}: {e.message[:300]}" for e in check.iter_errors(value)]

    def operation(self, method, path):
        """(its name in the document, what it says), or None"""
        for name, pattern in self.paths:
            if pattern.match(path.split("?")[0]) and (method, name) in self.operations:
                return name, self.operations[method, name]
        return None

    @staticmethod
    def schema_of(content, kind):
        """The name of the schema that a body of this kind has, or None."""
        kind = kind.split(";")[0].strip()
        return content[kind]["schema"]["$ref"].rpartition("/")[2] if kind in content else None

    def answer_errors(self, method, path, status, kind, body):
        """What is wrong with an answer: its status, its kind, a field that is not as the document says, or that it does not name."""
        found = self.operation(method, path)
        problem = self.json["components"]["responses"]["Problem"]
        said = found[1]["responses"].get(str(status)) if found and status < 400 else problem
        if said is None:
            return [f"no answer {status}"]
        if "content" not in said:
            return [f"a body with {status}"] if body else []
        schema = self.schema_of(said["content"], kind)
        return self.errors(schema, body) if schema else [f"no answer {status} of {kind!r}"]

    def request_errors(self, method, path, body):
        found = self.operation(method, path)
        said = found and found[1].get("requestBody")
        if not said:
            return ["no body"] if body else []
        return self.errors(next(iter(said["content"].values()))["schema"]["$ref"].rpartition("/")[2], body)
