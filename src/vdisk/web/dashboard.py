"""vdisk's part of the Ceph dashboard: REST below ``/api/vdisk``, and the page ``/vdisk``.

It runs inside of the dashboard module, not of vdisk, and calls vdisk through ``mgr.remote``. So vdisk may be disabled,
stopped or broken: then each request is answered 503, and nothing else happens. What differs between releases of the
dashboard is left to it: everything here goes through the decorators that its own controllers use.
"""

from __future__ import annotations

import importlib
import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .rest import CREATE, DELETE, POOLS, READ, RESOURCES, STATUS, UPDATE, Resource

PAGE = Path(__file__).resolve().parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Nothing may be fetched from elsewhere, and no script runs but those files, so that a name can't become code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_ARGUMENT_TYPES = {"string": str, "size": str, "int": int, "float": float, "bool": bool}
_GROUP = "Vdisk"


class Dashboard:
    """The dashboard's own modules, by the name of the package that its controllers are in."""

    def __init__(self, package: str) -> None:
        above = package.rpartition(".")[0]
        self.controllers = importlib.import_module(package)
        self.security = importlib.import_module(f"{above}.security")
        self.mgr = importlib.import_module(above).mgr
        self.cherrypy = importlib.import_module("cherrypy")

    @property
    def scope(self) -> str:
        """The scope that decides what a user may do."""
        return str(self.security.Scope.RBD_IMAGE)

    def permitted(self, function: Callable[..., Any], permission: str) -> Callable[..., Any]:
        """Mark a function as needing a permission."""
        made: Callable[..., Any] = getattr(self.controllers, f"{permission.capitalize()}Permission")(function)
        return made

    def refuse(self, status: int, error: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request with an error: in the form that the dashboard's own have, and vdisk's whole error object."""
        self.cherrypy.response.status = status
        return {"detail": error["message"], "code": error["code"], "component": "vdisk", "error": dict(error)}

    def call(self, words: str, arguments: Mapping[str, Any]) -> Any:
        """Have vdisk carry out a command; returns what the request is answered with."""
        try:
            answer = json.loads(self.mgr.remote("vdisk", "rest", words, json.dumps(arguments)))
        except ImportError:
            return self._unavailable("vdisk is not enabled on this cluster: ceph mgr module enable vdisk")
        except Exception as error:
            self.mgr.log.warning("vdisk: %s", error)
            return self._unavailable("vdisk does not work on this mgr; see its log")
        told = answer.get("error")
        return answer["answer"] if told is None else self.refuse(STATUS.get(told["code"], 500), told)

    def _unavailable(self, message: str) -> dict[str, Any]:
        return self.refuse(503, _error("unavailable", message, retryable=True))


def _error(code: str, message: str, retryable: bool = False) -> dict[str, Any]:
    """Return an error object as vdisk itself makes them."""
    return {"code": code, "message": message, "retryable": retryable, "details": {}}


def register(package: str) -> list[type]:
    """Make the controllers; ``package`` is that of the dashboard's controllers. Returns the classes made.

    All that can fail is done before the first class is made, because a class is registered by being made.
    """
    dashboard = Dashboard(package)
    commands = {command.words: command for command in importlib.import_module("vdisk.commands.table").COMMANDS}
    missing = [name for name in ("index.html", "app.js") if not (PAGE / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{PAGE} lacks {missing[0]}")
    bodies = []
    for name, about, resources in RESOURCES:
        there = [resource for resource in resources if resource.words in commands or resource.words == POOLS]
        if there:
            functions = {resource.action: _function(dashboard, resource, commands) for resource in there}
            bodies.append((f"Vdisk{name.capitalize()}", f"/vdisk/{name}", about, functions))
    session = {"session": _session(dashboard, sorted(commands))}
    bodies.append(("VdiskSession", "/vdisk/session", "Who is signed in and may do what", session))
    made = [_controller(dashboard, *body) for body in bodies]
    return [*made, _page(dashboard)]


def _controller(
    dashboard: Dashboard, name: str, path: str, about: str, functions: Mapping[str, Callable[..., Any]]
) -> type:
    api = dashboard.controllers
    base = types.new_class(name, (api.BaseController,), {}, lambda body: body.update(functions))
    made: type = api.APIRouter(path, dashboard.scope)(api.APIDoc(about, _GROUP)(base))
    return made


def _function(dashboard: Dashboard, resource: Resource, commands: Mapping[str, Any]) -> Callable[..., Any]:
    """Make the function that serves a request, with the signature that the dashboard makes routes and docs from."""
    command = commands.get(resource.words)
    arguments = [] if command is None else [a for a in command.all_arguments if a.name not in resource.without]
    in_path = [argument.name for argument in arguments if "{" + argument.name + "}" in resource.path]

    def serve(self: Any, **given: Any) -> Any:
        known = {argument.name for argument in arguments}
        unknown = sorted(set(given) - known)
        if unknown:
            return dashboard.refuse(400, _error("invalid_argument", f"unknown parameter {unknown[0]!r}"))
        return dashboard.call(resource.words, {name: value for name, value in given.items() if value is not None})

    # Required ones come first, as in any signature.
    required = [argument for argument in arguments if argument.required]
    optional = [argument for argument in arguments if not argument.required]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", kind),
            *(inspect.Parameter(argument.name, kind) for argument in required),
            *(inspect.Parameter(argument.name, kind, default=None) for argument in optional),
        ]
    )
    serve.__name__ = resource.action
    about = command.help if command is not None else "Pools and namespaces that may hold volumes, with their space"
    serve.__doc__ = about
    documented = {
        argument.name: (_ARGUMENT_TYPES[argument.type], argument.help, not argument.required) for argument in arguments
    }
    options: dict[str, Any] = {}
    if resource.method in ("GET", "DELETE"):
        options["query_params"] = [argument.name for argument in arguments if argument.name not in in_path]
    else:
        options["path_params"] = in_path
        api_allow = getattr(dashboard.controllers, "allow_empty_body", None)
        if api_allow is not None:
            serve = api_allow(serve)
    api = dashboard.controllers
    described = api.EndpointDoc(about, _GROUP, parameters=documented or None)(serve)
    permitted = dashboard.permitted(described, resource.permission)
    made: Callable[..., Any] = api.Endpoint(resource.method, resource.path, **options)(permitted)
    return made


def _session(dashboard: Dashboard, words: list[str]) -> Callable[..., Any]:
    """Make the request that tells the page what its user may do, and what vdisk can do."""

    def session(self: Any) -> dict[str, Any]:
        """Tell which permissions the user has, and which commands this version of vdisk has."""
        allowed = [name for name in (READ, CREATE, UPDATE, DELETE) if self._has_permissions(name)]
        return {"permissions": allowed, "commands": words}

    api = dashboard.controllers
    described = api.EndpointDoc("Who is signed in and may do what", _GROUP)(session)
    made: Callable[..., Any] = api.Endpoint("GET", "")(dashboard.permitted(described, READ))
    return made


def _files() -> Iterator[tuple[str, bytes, str]]:
    """Yield (name, content, type) of the page's files."""
    for path in sorted(PAGE.iterdir()):
        if path.suffix in _TYPES and path.is_file():
            yield path.name, path.read_bytes(), _TYPES[path.suffix]


def _page(dashboard: Dashboard) -> type:
    """Make the controller of the page. Its files are the same for everybody and need no login; what they show does."""
    api, cherrypy = dashboard.controllers, dashboard.cherrypy
    files = {name: (content, kind) for name, content, kind in _files()}

    def send(name: str) -> Any:
        if name not in files:
            raise cherrypy.NotFound
        content, kind = files[name]
        headers = cherrypy.response.headers
        headers["Content-Type"] = kind
        headers["Content-Security-Policy"] = _POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cache-Control"] = "no-cache"
        return content.decode()

    def index(self: Any) -> Any:
        """Send the page; what it loads is beside ``/vdisk``, so that a slash at the end would lead astray."""
        if cherrypy.request.path_info.endswith("/"):
            raise cherrypy.HTTPRedirect(cherrypy.request.script_name + cherrypy.request.path_info.rstrip("/"))
        return send("index.html").encode()

    def file(self: Any, name: str) -> Any:
        """Send a file that the page loads."""
        return send(name).encode()

    body: dict[str, Any] = {
        "index": api.Endpoint("GET", "", json_response=False, version=None)(index),
        "file": api.Endpoint("GET", "/{name}", json_response=False, version=None)(file),
        # The dashboard hands text on, which cherrypy encodes for the types text/* only.
        "_cp_config": {"tools.encode.on": True, "tools.encode.text_only": False},
    }
    base = types.new_class("VdiskPage", (api.BaseController,), {}, lambda space: space.update(body))
    made: type = api.Router("/vdisk", secure=False)(base)
    return made
