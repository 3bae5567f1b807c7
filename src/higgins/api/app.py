"""The application: everything put together."""

import logging
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa
from aiohttp import web
from msgspec import structs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from higgins.api import consoles, identity, openapi, versions
from higgins.api.auth import Auth, HttpBasic
from higgins.api.call import ApiSettings, base_url
from higgins.api.identity import Handler
from higgins.api.matching import Matcher
from higgins.api.metrics import Metrics
from higgins.api.pipeline import IDENTITY, Pipeline, json_response
from higgins.api.policies import Policy
from higgins.api.routes import ROUTES
from higgins.api.streams import OpenStreams
from higgins.control.cloud import Cloud

LOG = logging.getLogger(__name__)


def make_app(
    cloud: Cloud,
    *,
    auth: Auth,
    policy_file: Path | None = None,
    allowed_origins: tuple[str, ...] = (),
    settings: ApiSettings | None = None,
    figures: tuple[CollectorRegistry, ...] = (),
) -> web.Application:
    """The API of ``cloud``.

    ``allowed_origins`` are those of web pages that may call it and open consoles; ``figures`` of what else runs in this
    process are told at ``/metrics``.
    """
    settings = settings or ApiSettings()
    if allowed_origins:
        settings = structs.replace(settings, allowed_origins=(*settings.allowed_origins, *allowed_origins))
    metrics = Metrics(cloud, figures)
    streams = OpenStreams(settings.streams_per_project)
    policy = Policy(policy_file)
    document = openapi.document(ROUTES)

    async def root(request: web.Request) -> web.StreamResponse:
        return json_response(versions.root(base_url(request, settings)))

    async def v1(request: web.Request) -> web.StreamResponse:
        return json_response(versions.v1(base_url(request, settings)))

    async def described(request: web.Request) -> web.StreamResponse:
        return json_response(document)

    async def health(request: web.Request) -> web.StreamResponse:
        try:
            await cloud.store.read(lambda conn: conn.execute(sa.text("SELECT 1")).scalar())
        except sa.exc.SQLAlchemyError:
            LOG.exception("the database does not answer")
            return web.Response(status=503, text="The database does not answer.\n")
        return web.Response(text="OK\n")

    async def scrape(request: web.Request) -> web.StreamResponse:
        if not settings.open_metrics:
            caller = await auth.identify(request)
            request[IDENTITY] = caller
            policy.require("metrics:get", caller)
        return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def console(request: web.Request) -> web.StreamResponse:
        return await consoles.open_console(request, cloud, settings, streams)

    public: dict[str, Mapping[str, Handler]] = {
        "/": {"GET": root},
        "/v1": {"GET": v1},
        "/v1/openapi.json": {"GET": described},
        "/healthcheck": {"GET": health},
        "/metrics": {"GET": scrape},
        "/v1/consoles": {"GET": console},
    }
    if isinstance(auth, HttpBasic):
        public |= identity.handlers(auth, settings)
    pipeline = Pipeline(cloud, Matcher(ROUTES), auth, policy, settings, metrics, streams, public)
    app = web.Application(client_max_size=0)
    app.on_response_prepare.append(pipeline.add_headers)
    app.on_shutdown.append(streams.shut)
    app.router.add_route("*", "/{path:.*}", pipeline.serve)
    return app
