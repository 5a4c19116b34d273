"""The HTTP routes: TensorFlow Serving's form, the Open Inference Protocol, metrics, and the page."""

import contextlib
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.responses import JSONResponse

from .. import __version__
from . import asked as wanted
from . import page_answers, protocol_v1, protocol_v2
from .asked import Asked, Film
from .guard import Guard, body_of, on_errors
from .service import Service

OCTETS = "application/octet-stream"
REQUEST = {"requestBody": {"content": {"application/json": {"schema": protocol_v2.InferenceRequest.model_json_schema(
    ref_template="#/components/schemas/{model}")}}}}
MADE_WITH = "Open Inference Protocol, TensorFlow Serving's REST form, Prometheus metrics"


def make_app(service: Service, token: str = "") -> FastAPI:
    """The application that Uvicorn runs.

    Args:
        service: the model.
        token: what clients must send as `Authorization: Bearer TOKEN`; "" asks for none.
    """
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    # FastAPI's own documentation pages load scripts from a CDN; the description itself stays, at /openapi.json.
    app = FastAPI(title="chexpert_hier", version=__version__, description=MADE_WITH, lifespan=lifespan, docs_url=None,
                  redoc_url=None)
    on_errors(app)
    _add_v1(app, service)
    _add_v2(app, service)
    _add_page(app, service)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus_client.generate_latest(service.registry),
                        media_type=prometheus_client.CONTENT_TYPE_LATEST)

    app.add_middleware(Guard, service=service, token=token)
    return app


def _check(service: Service, name: str) -> None:
    if name != service.name:
        raise LookupError(f"no model of this name; this server has {service.name}")


def _add_v1(app: FastAPI, service: Service) -> None:
    """TensorFlow Serving's REST form."""
    @app.get("/v1/models")
    async def models() -> dict:
        return {"models": [service.name]}

    async def status(name: str) -> dict:
        _check(service, name)
        state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {"name": service.name, "ready": True, "model_version_status": [state]}

    async def predict(name: str, request: Request) -> Response:
        _check(service, name)
        async with body_of(request, service) as body:
            form, asked = await service.apart(protocol_v1.parse, body, service.limits.films)
            answers = await service.answer(asked)
            tensors = wanted.outputs(answers, service.model)
            return Response(await service.apart(protocol_v1.render, form, tensors), media_type="application/json")

    for base in ("/v1/models/{name}", "/v1/models/{name}/versions/1"):
        app.add_api_route(f"{base}:predict", predict, methods=["POST"])
        app.add_api_route(base, status)


def _add_v2(app: FastAPI, service: Service) -> None:
    """The Open Inference Protocol."""
    @app.get("/v2")
    async def server() -> dict:
        return {"name": "chexpert_hier", "version": __version__, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live")
    async def live() -> dict:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not service.draining}, 503 if service.draining else 200)

    async def model_ready(name: str) -> JSONResponse:
        _check(service, name)
        return JSONResponse({"name": name, "ready": not service.draining}, 503 if service.draining else 200)

    async def metadata(name: str) -> dict:
        _check(service, name)
        return protocol_v2.metadata(service.name, service.model)

    async def infer(name: str, request: Request) -> Response:
        _check(service, name)
        async with body_of(request, service) as body:
            length = request.headers.get(protocol_v2.HEADER_LENGTH)
            sent, asked = await service.apart(protocol_v2.parse, body, length, service.limits.films)
            answers = await service.answer(asked)
            tensors = wanted.outputs(answers, service.model)
            data, head = await service.apart(protocol_v2.render, service.name, sent, tensors)
        headers = {} if head is None else {protocol_v2.HEADER_LENGTH: str(head)}
        return Response(data, headers=headers, media_type="application/json" if head is None else OCTETS)

    for base in ("/v2/models/{name}", "/v2/models/{name}/versions/1"):
        app.add_api_route(f"{base}/infer", infer, methods=["POST"], openapi_extra=REQUEST)
        app.add_api_route(f"{base}/ready", model_ready)
        app.add_api_route(base, metadata)


def _add_page(app: FastAPI, service: Service) -> None:
    """The page, and what its scripts ask."""
    @app.get("/")
    async def page() -> Response:
        return Response(files(__package__).joinpath("static", "index.html").read_bytes(), media_type="text/html")

    @app.get("/page/model")
    async def about() -> dict:
        return page_answers.about(service.model, service.limits.body)

    @app.post("/page/film")
    async def film(request: Request, view: str = "") -> Response:
        asked = Asked((), view)
        async with body_of(request, service) as body:
            answer, picture = await service.read_one(Film(body), asked.view, service.model.has_maps,
                                                     page_answers.picture)
            found = await service.apart(page_answers.film, service.model, answer, picture)
        return Response(found, 200 if picture else 422, media_type="application/json")

    @app.post("/page/study")
    async def study(request: Request) -> dict[str, Any]:
        async with body_of(request, service) as body:
            return page_answers.study(service.model, body)

    app.mount("/static", StaticFiles(packages=[(__package__, "static")]))
