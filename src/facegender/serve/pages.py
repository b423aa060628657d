"""Routes for people: the web page, the API documentation, the descriptions of problems."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, PlainTextResponse, Response

from facegender.serve.problems import PROBLEM_KINDS

WEB_APP = Path(__file__).parents[1] / "web" / "app"
"""The files of the web page."""

_DOCS = Path(__file__).parent / "docs"
_SWAGGER = Path(fastapi_offline.__file__).parent / "static"
_SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
_MEDIA_TYPES = {  # not guessed: the result would depend on the operating system
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def add_pages(app: FastAPI) -> None:
    """Add the routes to an application."""

    @app.get("/problems/{name}", include_in_schema=False)
    async def problem(name: str) -> Response:
        if name not in PROBLEM_KINDS:
            raise HTTPException(404)
        kind = PROBLEM_KINDS[name]
        return PlainTextResponse(f"{kind.title} ({kind.status})\n\n{kind.advice}\n")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _file(_DOCS / "docs.html")

    @app.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> Response:
        if name in _SWAGGER_FILES:
            return _file(_SWAGGER / name)
        if name in ("docs.js", "docs.css"):
            return _file(_DOCS / name)
        raise HTTPException(404)

    for path in sorted(WEB_APP.iterdir()):
        if path.suffix in _MEDIA_TYPES:
            _add_file(app, path)


def _add_file(app: FastAPI, path: Path) -> None:
    """Add the route of one file of the web page."""

    @app.get("/" if path.name == "index.html" else f"/{path.name}", include_in_schema=False)
    async def file() -> Response:
        return _file(path)


def _file(path: Path) -> Response:
    """Send a file that browsers revalidate on every load."""
    return FileResponse(
        path, media_type=_MEDIA_TYPES[path.suffix], headers={"Cache-Control": "no-cache"}
    )
