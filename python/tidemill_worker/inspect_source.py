"""Reads what a function says of itself without running it: the literal arguments of its `@tidemill.endpoint`.

Usage: inspect_source.py FOLDER MODULE:ATTRIBUTE → JSON
"""

import ast
import json
import os
import sys


def main(folder, target):
    module, _, attribute = target.partition(":")
    module = module[:-3] if module.endswith(".py") else module
    path = os.path.join(folder, *module.strip("/").replace(".", "/").split("/"))
    path = path + ".py" if os.path.isfile(path + ".py") else os.path.join(path, "__init__.py")
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    return {"settings": _settings(tree.body, attribute.split("."))}


def _settings(body, parts):
    """Of the class, and over that of its method."""
    found = {}
    for part in parts:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == part:
                for decorator in node.decorator_list:
                    found.update(_literals(decorator))
                body = node.body
                break
        else:
            return found
    return found


def _literals(decorator):
    if not isinstance(decorator, ast.Call):
        return {}
    name = decorator.func.attr if isinstance(decorator.func, ast.Attribute) else getattr(decorator.func, "id", "")
    if name != "endpoint":
        return {}
    found = {}
    for keyword in decorator.keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            # Computed: the worker will know, here it is left out.
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
