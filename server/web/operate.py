"""What an operator looks at: liveness, readiness, the API's documentation, and the list of sites."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server import metrics
from server.i18n import Text
from server.web.depends import Operator, Receptions, Running
from server.web.pages import page
from server.web.problems import Problem
from server.web.schema import READINESS

router = APIRouter(tags=["operate"])
# What is asked of every process, also one that serves no sites.
probes = APIRouter(tags=["operate"])
_READ = ["GET", "HEAD"]


# Each twice: one route has one operation id, and the document wants one for each method.
@probes.get("/healthz", summary="Is the process alive?")
@probes.api_route("/healthz", methods=_READ, include_in_schema=False)
async def healthz() -> dict[str, str]:
    """Answers while the process takes requests. Asks nothing else: a dead relay is no reason to restart a server."""
    return {"status": "ok"}


@probes.get("/readyz", summary="Does everything work?", dependencies=[Operator], **READINESS)
@probes.api_route("/readyz", methods=_READ, include_in_schema=False, dependencies=[Operator])
async def readyz(runtime: Running) -> JSONResponse:
    """Database, relay, and what waits. 503 only when signups cannot be kept; held mail is told, and is no failure."""
    health = await runtime.health()
    return JSONResponse(health, 200 if health["ready"] else 503)


@probes.api_route("/metrics", methods=_READ, include_in_schema=False, dependencies=[Operator])
async def measurements(request: Request, runtime: Running) -> Response:
    """What Prometheus scrapes. It answers while the database is away, and says so."""
    content, content_type = metrics.exposition(await runtime.reading(), request.headers.get("accept", ""))
    return Response(content, headers={"content-type": content_type})


@router.api_route("/", methods=_READ, include_in_schema=False)
async def index(request: Request, receptions: Receptions) -> Response:
    """The sites that are served here."""
    if not request.app.state.index:
        problem = Problem(404, Text("There is no page at this address."))
        return page(request, "problem.html", {"problem": problem}, status=404)
    sites = [reception.site for reception in receptions.values()]
    return page(request, "index.html", {"sites": sites})


@router.api_route("/openapi.json", methods=_READ, include_in_schema=False, dependencies=[Operator])
async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    document: dict[str, Any] = request.app.openapi()
    return JSONResponse(document)


@router.api_route("/docs", methods=_READ, include_in_schema=False, dependencies=[Operator])
async def docs(request: Request) -> Response:
    """The API's documentation, to read and to try. Its assets are our own, its script a file."""
    # Swagger UI sets style attributes as it draws.
    return page(request, "docs.html", {}, headers={"content-language": "en"}, policy="style-src-attr 'unsafe-inline'")
