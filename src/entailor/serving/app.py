"""The HTTP interface: routes, and how errors of the library become status codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Match, Route

from entailor.data.example import Example
from entailor.errors import EntailorError
from entailor.evaluation.calibration import apply_temperature
from entailor.serving.batching import Batcher, BatchQueue, ClosedError, Job, Probabilities, QueueFullError
from entailor.serving.metrics import ServerMetrics
from entailor.serving.middleware import BodyLimit, RequestLog, TokenCheck, error_response, log_line
from entailor.serving.pages import docs_page, page_headers, try_page
from entailor.serving.registry import OutsideError, Registry, Served, path_below
from entailor.serving.schemas import (
    ClassifyRequest,
    ClassifyResponse,
    ErrorResponse,
    LoadRequest,
    ModelCard,
    ModelList,
    Result,
    Score,
    Status,
)
from entailor.serving.settings import ServerSettings

LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
"""A page on another site that lets its own name point here is refused by these."""
ERRORS: dict[str, str] = {
    "400": "Not readable as JSON, or another host.",
    "401": "No token, or the wrong one.",
    "403": "Not allowed on this server.",
    "404": "No such classifier.",
    "409": "Cannot be loaded.",
    "413": "The body is too large.",
    "422": "The request does not fit.",
    "429": "The queue is full; try again after the seconds in Retry-After.",
    "500": "The classifier failed.",
    "503": "The server is stopping.",
}


class RefusedError(Exception):
    """A request is answered with an error.

    Args:
        status: of HTTP.
        kind: one word for programs.
        message: for people.
        retry_after: seconds.
    """

    def __init__(self, status: int, kind: str, message: str, retry_after: int | None = None) -> None:
        self.status, self.kind, self.message, self.retry_after = status, kind, message, retry_after
        super().__init__(message)


def create_app(
    registry: Registry, settings: ServerSettings, write: Callable[[str], None] = lambda line: None
) -> FastAPI:
    """Return the application; its `state.batcher` answers between startup and shutdown.

    Args:
        registry: the classifiers.
        settings: of the server.
        write: takes lines of the log.
    """
    metrics = ServerMetrics()
    queue = BatchQueue(settings.batch_tokens, settings.wait_ms / 1000, settings.max_queue)
    batcher = Batcher(queue, metrics.batch)
    metrics.queue.set_function(lambda: len(queue))
    metrics.models.set_function(lambda: len(registry))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="Entailor",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    app.state.batcher, app.state.metrics = batcher, metrics
    app.openapi = partial(_document, app, settings)  # type: ignore[method-assign]
    _add_errors(app, write)
    _add_pages(app, registry, batcher, metrics)
    _add_classify(app, registry, batcher, settings)
    _add_models(app, registry, settings, write)
    # the last one added is the outermost
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    if settings.token is not None:
        app.add_middleware(TokenCheck, token=settings.token)
    if settings.is_local:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_HOSTS)
    app.add_middleware(RequestLog, write=write, metrics=metrics)
    return app


def _document(app: FastAPI, settings: ServerSettings) -> dict[str, Any]:
    """Return the OpenAPI document with the limits of this server, so that clients know them beforehand."""
    if app.openapi_schema is None:
        inputs = FastAPI.openapi(app)["components"]["schemas"]["ClassifyRequest"]["properties"]["inputs"]
        inputs["maxItems"] = settings.max_inputs
        for one in inputs["items"]["anyOf"]:
            one.get("items", one)["maxLength"] = settings.max_characters
    return app.openapi_schema or {}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's errors."""
    return {status: {"model": ErrorResponse, "description": ERRORS[str(status)]} for status in statuses}


def _add_errors(app: FastAPI, write: Callable[[str], None]) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return error_response(error.status, error.kind, error.message, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # what the client sent stays out of the message: it may hold what JSON cannot
        found = [f"{_place(one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
        words = "; ".join(dict.fromkeys(found)).encode("ascii", "backslashreplace").decode()
        if "json" not in request.headers.get("content-type", ""):  # FastAPI then reads the body as text
            words += ". Send the header Content-Type: application/json"
        is_json = not any(one["type"] == "json_invalid" for one in error.errors())
        return error_response(422 if is_json else 400, "invalid_request", words)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        headers = dict(error.headers or {})
        if error.status_code == 405:  # Starlette names the methods of the first route of a path alone
            headers["Allow"] = ", ".join(sorted(allowed_methods(app, request)))
        return error_response(error.status_code, kind, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        write(log_line("error", kind=type(error).__name__))  # the message may hold a text
        return error_response(500, "internal_error", f"the server failed: {type(error).__name__}")


def _place(location: Sequence[str | int]) -> str:
    """Return where in a body something stands, without what pydantic calls the types that may stand there."""
    return ".".join(str(part) for part in location[1:] if "[" not in str(part)) or "body"


def allowed_methods(app: FastAPI, request: Request) -> set[str]:
    """Return the methods that a request's path takes."""
    routes = [one for one in app.routes if isinstance(one, Route) and one.matches(request.scope)[0] != Match.NONE]
    return {method for route in routes for method in route.methods or ()}


def _add_pages(app: FastAPI, registry: Registry, batcher: Batcher, metrics: ServerMetrics) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(try_page(), headers=page_headers(try_page()))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        text = docs_page(app.openapi())
        return HTMLResponse(text, headers=page_headers(text))

    @app.get("/healthz", tags=["server"])
    async def healthz() -> Status:
        """Answer while the process lives."""
        return Status(status="ok")

    @app.get("/readyz", tags=["server"], responses=errors(503))
    async def readyz() -> Status:
        """Answer 200 once a classifier is loaded, until the server stops."""
        if not batcher.alive or not len(registry):
            raise RefusedError(503, "not_ready", "no classifier is loaded, or the server is stopping", retry_after=1)
        return Status(status="ready")

    @app.get(
        "/metrics",
        tags=["server"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors(401)},
    )
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_classify(app: FastAPI, registry: Registry, batcher: Batcher, settings: ServerSettings) -> None:
    metrics: ServerMetrics = app.state.metrics

    @app.post("/v1/classify", tags=["classify"], responses=errors(400, 401, 404, 413, 422, 429, 500, 503))
    async def classify(asked: ClassifyRequest, request: Request) -> ClassifyResponse:
        """Classify texts or pairs."""
        served = registry.get(asked.model)
        if served is None:
            raise RefusedError(404, "not_found", f"no classifier {asked.model!r} is served. See GET /v1/models")
        request.state.facts = {"model": served.name, "inputs": len(asked.inputs)}
        examples = checked_examples(asked, served, settings)
        try:
            future = batcher.submit(served.lane, [Job(served.model, example) for example in examples])
        except QueueFullError as full:
            raise RefusedError(429, "queue_full", str(full), full.retry_after) from None
        except ClosedError:
            raise RefusedError(503, "stopping", "the server is stopping", retry_after=5) from None
        try:
            rows = await asyncio.wrap_future(future)
        except EntailorError as error:
            raise RefusedError(500, "classifier_failed", type(error).__name__) from error
        answer = response(asked, served, rows)
        metrics.inputs.labels(served.name).inc(len(rows))
        metrics.abstained.labels(served.name).inc(sum(one.abstained for one in answer.results))
        return answer


def checked_examples(asked: ClassifyRequest, served: Served, settings: ServerSettings) -> list[Example]:
    """Return a request's inputs as examples.

    Raises:
        RefusedError: too many, too long, of the other shape, or calibration that was never fitted.
    """
    if len(asked.inputs) > settings.max_inputs:
        raise RefusedError(
            422,
            "too_many_inputs",
            f"{len(asked.inputs)} inputs found, at most {settings.max_inputs} are taken at a time",
        )
    if asked.calibrated and served.predictor.temperature is None:
        raise RefusedError(
            422, "not_calibrated", f"no temperature was fitted for {served.name!r}. Leave out calibrated"
        )
    examples = []
    for index, one in enumerate(asked.inputs):
        texts = [one] if isinstance(one, str) else one
        if len(texts) != 1 + served.predictor.is_pair:
            expected, found = ("a pair", "a text") if served.predictor.is_pair else ("a text", "a pair")
            raise RefusedError(
                422, "wrong_shape", f"inputs.{index}: {served.name!r} takes {expected}, {found} was found"
            )
        if (longest := max(map(len, texts))) > settings.max_characters:
            limit = settings.max_characters
            raise RefusedError(
                422, "text_too_long", f"inputs.{index}: {longest:,} characters found, at most {limit:,} are taken"
            )
        examples.append(Example(str(index), *texts))
    return examples


def response(asked: ClassifyRequest, served: Served, rows: list[Probabilities]) -> ClassifyResponse:
    """Return the answer to a request.

    Args:
        asked: the request.
        served: its classifier.
        rows: probabilities_L of each input.
    """
    predictor = served.predictor
    results = []
    for row in rows:
        if asked.calibrated and predictor.temperature is not None:
            row = apply_temperature(row[None], predictor.temperature)[0]  # noqa: PLW2901
        answer = predictor.answer(row, asked.min_confidence)
        ordered = sorted(answer.probabilities.items(), key=lambda item: -item[1])[: asked.top_k]
        scores = [Score(label=label, probability=min(probability, 1.0)) for label, probability in ordered]
        results.append(Result(label=answer.label, abstained=answer.label is None, scores=scores))
    return ClassifyResponse(
        model=served.name, calibrated=asked.calibrated, min_confidence=asked.min_confidence, results=results
    )


def model_card(served: Served, registry: Registry) -> ModelCard:
    """Return what clients may know of a classifier; not where it lies."""
    predictor = served.predictor
    return ModelCard(
        name=served.name,
        candidate=predictor.name,
        base_model=predictor.base_model and Path(predictor.base_model).name,
        labels=list(predictor.labels),
        is_pair=predictor.is_pair,
        can_calibrate=predictor.temperature is not None,
        shares_base=sum(one.lane is served.lane for one in registry) > 1,
    )


def _add_models(app: FastAPI, registry: Registry, settings: ServerSettings, write: Callable[[str], None]) -> None:
    @app.get("/v1/models", tags=["models"], responses=errors(401))
    async def models() -> ModelList:
        """List the classifiers that are served."""
        return ModelList(models=[model_card(served, registry) for served in registry])

    @app.post("/v1/models", tags=["models"], status_code=201, responses=errors(400, 401, 403, 409, 413, 422))
    async def load(asked: LoadRequest) -> ModelCard:
        """Load a classifier from the server's --models-folder."""
        if settings.models_folder is None:
            raise RefusedError(403, "not_allowed", "this server was started without --models-folder")
        try:
            path = path_below(asked.path, settings.models_folder)
            served = await asyncio.to_thread(registry.load, asked.name, path)
        except OutsideError as error:
            raise RefusedError(403, "not_allowed", str(error)) from None
        except (EntailorError, OSError) as error:
            raise RefusedError(409, "not_loaded", str(error)) from None
        write(log_line("loaded", model=served.name))
        return model_card(served, registry)

    @app.delete("/v1/models/{name}", tags=["models"], status_code=204, responses=errors(401, 403, 404, 422))
    async def unload(name: str) -> Response:
        """Stop serving a classifier; what was accepted for it is still answered."""
        if settings.models_folder is None:
            raise RefusedError(403, "not_allowed", "this server was started without --models-folder")
        if not await asyncio.to_thread(registry.unload, name):
            raise RefusedError(404, "not_found", f"no classifier {name[:100]!r} is served")
        write(log_line("unloaded", model=name))
        return Response(status_code=204)
