"""Which changes of the code certainly change nothing that it does, so that ``mutants.py`` does not make them.

Each rule is one of syntax, and leans to the safe side: what it does not cover is a mutant like any other. Never made is
a change of

- what is for people and type checkers: docstrings, annotations, type aliases, type variables, the type that ``cast``
  is given, overloads, the defaults of a protocol's methods (nobody inherits them), the words of logs and errors, what a
  ``__repr__`` says, the names of threads;
- an assertion that cannot fail unless the code is wrong: ``assert``, ``strict=`` of a ``zip``;
- what saves memory or time alone: ``slots=`` of a dataclass, ``maxsize=`` of an ``lru_cache``, by one the size of a
  bounded memory (``len(...)`` compared with a constant of the module that is at least 16, and that constant, where
  nothing else is done with it);
- which of two equal values is taken: ``a if a > b else b`` with ``>=`` in it, ``if a > b: b = a`` too;
- ``usedforsecurity=`` of a hash: the digest is the same.

``return True`` and ``return False`` are not made ``return None``: they are turned round already.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

_TYPE_MAKERS = {"TypeVar", "ParamSpec", "TypeVarTuple", "NewType"}
_LEAST_MEMORY = 16


def changes_nothing(tree: ast.Module) -> set[ast.AST]:
    """The nodes of a module of which no mutant is made."""
    found: set[ast.AST] = set(_of_bounded_memories(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.update(_of_call(node))
        elif isinstance(node, ast.ClassDef):
            found.update(_of_class(node))
        elif isinstance(node, (ast.IfExp, ast.If)) and _takes_one_of_two(node):
            found.add(node.test)
    return found


def _of_call(call: ast.Call) -> Iterator[ast.AST]:
    name = _name(call.func)
    if name == "cast" and call.args:
        yield from ast.walk(call.args[0])
    if name in _TYPE_MAKERS:
        yield from ast.walk(call)
    for keyword in call.keywords:
        if (
            (name == "zip" and keyword.arg == "strict")
            or (name == "dataclass" and keyword.arg == "slots")
            or (name == "lru_cache" and keyword.arg == "maxsize")
            or keyword.arg in ("usedforsecurity", "thread_name_prefix")
            or (name == "Thread" and keyword.arg == "name")
        ):
            yield from ast.walk(keyword)


def _of_class(node: ast.ClassDef) -> Iterator[ast.AST]:
    is_protocol = any(_name(base) == "Protocol" for base in node.bases)
    for each in node.body:
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if each.name == "__repr__":
                for statement in each.body:
                    yield from ast.walk(statement)
            elif is_protocol and _says_nothing(each):
                for default in (*each.args.defaults, *each.args.kw_defaults):
                    if default is not None:
                        yield from ast.walk(default)


def _says_nothing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) for each in function.body)


def _takes_one_of_two(node: ast.IfExp | ast.If) -> bool:
    """Whether it takes the larger or the smaller of two values, and nothing else."""
    test = node.test
    if not (
        isinstance(test, ast.Compare)
        and len(test.ops) == 1
        and isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
    ):
        return False
    compared = {ast.dump(test.left), ast.dump(test.comparators[0])}
    if isinstance(node, ast.IfExp):
        return {ast.dump(node.body), ast.dump(node.orelse)} == compared
    if node.orelse or len(node.body) != 1:
        return False
    only = node.body[0]
    if not isinstance(only, ast.Assign) or len(only.targets) != 1 or isinstance(only.value, ast.Call):
        return False
    return {_as_read(only.targets[0]), ast.dump(only.value)} == compared


def _as_read(target: ast.expr) -> str:
    return ast.dump(target).replace("ctx=Store()", "ctx=Load()")


def _of_bounded_memories(tree: ast.Module) -> Iterator[ast.AST]:
    """Where the size of a memory is set, and compared with."""
    sizes: dict[str, ast.Constant] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            value = statement.value
            if isinstance(value, ast.Constant) and type(value.value) is int and value.value >= _LEAST_MEMORY:
                sizes[statement.targets[0].id] = value
    compared: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Call):
            right = node.comparators[0]
            if _name(node.left.func) == "len" and isinstance(right, ast.Name) and right.id in sizes:
                compared[right.id] += 1
                if isinstance(node.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
                    yield node
    read = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    for name, constant in sizes.items():
        if compared[name] and compared[name] == read[name]:
            yield constant


def _name(node: ast.expr) -> str:
    """The last name of what is called or inherited."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
