"""Which route a path leads to. Paths are read as Zun reads them: ``/v1`` may be missing, slashes doubled or trailing,
and ``.json`` appended."""

from collections.abc import Iterable
from urllib.parse import unquote

from msgspec import Struct, field

from higgins.api.errors import NoRoute, WrongMethod
from higgins.api.routes import Route


class _Node(Struct):
    literal: dict[str, "_Node"] = field(default_factory=dict)
    variable: "_Node | None" = None
    name: str = ""
    routes: dict[str, Route] = field(default_factory=dict)


def segments(raw_path: str) -> list[str]:
    """The decoded parts of a path, without ``v1`` in front and ``.json`` at the end."""
    parts = [unquote(part) for part in raw_path.split("/") if part]
    if parts and parts[0] == "v1":
        del parts[0]
    if parts and parts[-1].endswith(".json") and len(parts[-1]) > 5:
        parts[-1] = parts[-1][:-5]
    return parts


class Matcher:
    """The table of routes as a tree."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for part in segments(route.path):
                node = _grow(node, part)
            if route.method in node.routes:
                raise ValueError(f"{route.method} {route.path} is in the table twice")
            node.routes[route.method] = route

    def match(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route and the variable parts of the path. Raises ``NoRoute``, ``WrongMethod``."""
        node, values = self._find(raw_path)
        route = node.routes.get(method)
        if route is None and method == "HEAD":
            route = node.routes.get("GET")
            route = None if route is None or route.streams else route
        if route is None:
            raise WrongMethod(", ".join(allowed(node.routes)))
        return route, values

    def methods(self, raw_path: str) -> list[str]:
        """What a path answers to, for OPTIONS. Raises ``NoRoute``."""
        return allowed(self._find(raw_path)[0].routes)

    def _find(self, raw_path: str) -> tuple[_Node, dict[str, str]]:
        parts = segments(raw_path)
        if len(parts) > 3 and parts[0] == "images" and parts[-1] == "search":
            parts = ["images", "/".join(parts[1:-1]), "search"]  # names of images have slashes
        node, values = self._root, {}
        for part in parts:
            found = node.literal.get(part)
            if found is None and node.variable is not None and _storable(part):
                found = node.variable
                values[found.name] = part
            if found is None:
                raise NoRoute("There is nothing at this path.")
            node = found
        if not node.routes:
            raise NoRoute("There is nothing at this path.")
        return node, values


def _grow(node: _Node, part: str) -> _Node:
    if part.startswith("{"):
        if node.variable is None:
            node.variable = _Node(name=part[1:-1])
        return node.variable
    return node.literal.setdefault(part, _Node())


def _storable(part: str) -> bool:
    return len(part) <= 255 and "\0" not in part


def allowed(routes: dict[str, Route]) -> list[str]:
    methods = set(routes) | {"OPTIONS"}
    if "GET" in routes and not routes["GET"].streams:
        methods.add("HEAD")
    return sorted(methods)
