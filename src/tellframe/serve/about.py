"""What the service says of itself: models, health, figures."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from tellframe.bundle import DEFAULT, Bundle, load_bundle, shipped_bundles
from tellframe.serve import metrics
from tellframe.serve.api import Caller, Used, documented
from tellframe.serve.problems import ProblemError
from tellframe.serve.service import Service
from tellframe.serve.views import Health, Models, ModelView

router = APIRouter(tags=["service"])


@router.get("/v1/models", responses=documented())
def list_models(_caller: Caller, service: Used) -> Models:
    """List the models, and what the service accepts."""
    active = service.bundle
    shipped = {name: load_bundle(name) for name in shipped_bundles()}
    bundles = [active, *(b for b in shipped.values() if b.sha256 != active.sha256)]
    settings = service.settings
    described = shipped[DEFAULT].sha256  # by the model card that comes with the package
    return Models(
        models=[
            _model(
                bundle,
                service,
                active=bundle is active,
                card=f"{settings.root_path}/model-card" if bundle.sha256 == described else None,
            )
            for bundle in bundles
        ],
        max_bytes=settings.max_bytes,
        keep_seconds=settings.keep_seconds,
        accepts_urls=settings.allow_urls,
        keeps_uploads=settings.keep_uploads,
    )


def _model(bundle: Bundle, service: Service, *, active: bool, card: str | None) -> ModelView:
    return ModelView(
        name=bundle.name,
        version=bundle.version,
        sha256=bundle.sha256,
        recipe_digest=(service.recipe if active else bundle.recipe).digest,
        active=active,
        licence=bundle.licence,
        calibrated_on=bundle.calibration.fitted_on,
        fake_from=bundle.decision.fake_from,
        real_to=bundle.decision.real_to,
        card=card,
    )


@router.get("/healthz")
def is_alive() -> Health:
    """Tell whether the server answers."""
    return Health()


@router.get("/readyz", responses={503: documented("not_ready")[503]})
def is_ready(service: Used) -> Health:
    """Tell whether analyses can run: a worker has loaded the model and scored a sample."""
    if not service.pool.is_ready:
        raise ProblemError(
            "not_ready", service.pool.trouble or "Wait a few seconds.", {"Retry-After": "2"}
        )
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(),
    },
)
def get_metrics(_caller: Caller, service: Used) -> Response:
    """Return figures for Prometheus."""
    text = service.metrics.write(
        service.store.count(), ready=service.pool.is_ready, starts=service.pool.starts
    )
    return Response(text, media_type=metrics.MEDIA_TYPE)
