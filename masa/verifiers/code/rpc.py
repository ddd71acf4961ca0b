"""The two programs of a function test, each in a separate sandbox; standard library alone.

`serve` runs the candidate and answers calls. `examine` runs the tests with their expected values,
and calls. They exchange JSON of plain data, so that a test compares values and never objects of the
candidate. The text of this file is the first part of both programs.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

MAX_MESSAGE = 2**26
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}
# a StopIteration would end a `map` over the program instead of failing
ENDINGS = ("StopIteration", "StopAsyncIteration")
# the plain value of an instance of a subclass, without methods of the subclass
BARE: dict[type, Callable[[Any], Any]] = {
    int: int.__pos__,
    float: float.__pos__,
    str: str.__str__,
}


def pack(value: Any, refer: Callable[[Any], list[Any]]) -> Any:
    """JSON data of a value; `refer` names an object that is no plain data."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind, bare in BARE.items():
        if isinstance(value, kind):
            return bare(value)
    if isinstance(value, dict):
        return ["dict", *([pack(k, refer), pack(v, refer)] for k, v in value.items())]
    for name in ("list", "tuple", "set", "frozenset"):
        if isinstance(value, getattr(builtins, name)):
            return [name, *(pack(item, refer) for item in value)]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", value.hex()]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return pack(value.tolist(), refer)
    return ["ref", refer(value)]


def unpack(data: Any, find: Callable[[list[Any]], Any]) -> Any:
    """Inverse of `pack`; `find` gives the object of a reference."""
    if not isinstance(data, list):
        return data
    tag, *items = data
    if tag == "ref":
        return find(items[0])
    if tag == "complex":
        return complex(*items)
    if tag == "bytes":
        return bytes.fromhex(items[0])
    if tag == "dict":
        return {unpack(k, find): unpack(v, find) for k, v in items}
    return CONTAINERS[tag]([unpack(item, find) for item in items])


class Line:
    """JSON messages over an inherited socket."""

    def __init__(self, fd: int) -> None:
        self.incoming = os.fdopen(fd, "rb")
        self.outgoing = os.fdopen(os.dup(fd), "wb")

    def send(self, message: Any) -> None:
        self.outgoing.write(json.dumps(message).encode() + b"\n")
        self.outgoing.flush()

    def receive(self) -> Any:
        """The next message, None after the last one."""
        text = self.incoming.readline(MAX_MESSAGE)
        return json.loads(text) if text.endswith(b"\n") else None


def load(name: str, sources: list[str]) -> dict[str, Any]:
    """Run sources one after the other in the module `name` and return its globals."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    for source in sources:
        exec(compile(source, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def serve(sources: list[str], fd: int) -> None:
    """Answer [verb, reference, args, kwargs] with ["value", data] or ["error", type, text]."""
    line = Line(fd)
    scope = load("candidate", sources)
    objects: list[Any] = []

    def refer(value: Any) -> list[Any]:
        objects.append(value)
        return ["object", len(objects) - 1]

    def find(reference: list[Any]) -> Any:
        kind, *details = reference
        if kind == "object":
            return objects[details[0]]
        if kind == "attribute":
            return getattr(find(details[0]), details[1])
        if details[0] not in scope:
            raise NameError(f"name {details[0]!r} is not defined")
        return scope[details[0]]

    while (request := line.receive()) is not None:
        try:
            verb, reference, args, kwargs = request
            target = find(reference)
            if verb == "items":
                answer = ["value", pack(list(target), refer)]
            else:
                arguments = [unpack(arg, find) for arg in args]
                keywords = {name: unpack(arg, find) for name, arg in kwargs.items()}
                answer = ["value", pack(target(*arguments, **keywords), refer)]
        except Exception as error:
            answer = ["error", type(error).__name__, str(error)[:300]]
        line.send(answer)


class Remote:
    """An object of the candidate that is no plain data: it can be called, read and passed on."""

    def __init__(self, call: Callable[..., Any], reference: list[Any]) -> None:
        self.__dict__.update(_remote_call=call, _reference=reference)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote_call("call", self._reference, args, kwargs)

    def __iter__(self) -> Any:
        return iter(self._remote_call("items", self._reference, (), {}))

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(self._remote_call, ["attribute", self._reference, name])

    def _opaque(self, *_: Any) -> Any:
        raise TypeError("the program returned an object, not plain data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = _opaque
    __setattr__ = __delattr__ = _opaque
    __hash__ = None  # type: ignore[assignment]


def examine(tests: str, names: list[str], fd: int) -> None:
    """Run the tests against the candidate and print ["passed" | "failed" | "broken", reason].

    Args:
        tests: Python source; names it uses without defining them are the candidate's.
        names: names of the candidate even where Python has a function of that name.
        fd: socket to the candidate.
    """
    line = Line(fd)
    verdict = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr = open(os.devnull, "w")
    called = False

    def refer(value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return value.__dict__["_reference"]  # type: ignore[no-any-return]
        raise TypeError(f"a test passes a {type(value).__name__}, which cannot be sent")

    def call(verb: str, reference: list[Any], args: Any, kwargs: Any) -> Any:
        nonlocal called
        arguments = [pack(arg, refer) for arg in args]
        keywords = {name: pack(arg, refer) for name, arg in kwargs.items()}
        called = True
        try:
            line.send([verb, reference, arguments, keywords])
            answer = line.receive()
        except (OSError, ValueError, RecursionError):
            answer = None
        if answer is None:
            raise EOFError("the program ended")
        kind, *details = answer
        if kind == "value":
            return unpack(details[0], lambda reference: Remote(call, reference))
        name, text = details
        error = vars(builtins).get(name)
        if isinstance(error, type) and issubclass(error, Exception) and name not in ENDINGS:
            raise error(text)
        raise RuntimeError(f"{name}: {text}")

    try:
        tree = ast.parse(tests)
        free = (free_names(tree) - set(dir(builtins))) | set(names)
        scope: dict[str, Any] = {name: Remote(call, ["name", name]) for name in free}
        exec(compile(tree, "<tests>", "exec", dont_inherit=True), {"__name__": "tests", **scope})
        report = ["passed", ""] if called else ["broken", "nothing of the program is called"]
    except BaseException as error:
        # an error before the first call cannot be the program's
        report = ["failed" if called else "broken", f"{type(error).__name__}: {error}"[:300]]
    json.dump(report, verdict)
    verdict.flush()


def free_names(tree: ast.Module) -> set[str]:
    """Names that a module loads and never binds."""
    loaded: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return loaded - bound
