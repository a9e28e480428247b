"""A job's report as a download: one HTML file that can be sent to others."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.routing import action, page
from api.http.threads import beside
from guardfleet.domain import ids
from guardfleet.report.contents import gather
from guardfleet.report.rendering import render
from guardfleet.store.jobs import views


async def download(ask: Ask) -> Response:
    """Send the report."""
    return await _report(ask, with_text=False)


async def download_with_texts(ask: Ask) -> Response:
    """Send the report whose examples have their texts; it is recorded as an export, so a form asks for it, and no link."""
    return await _report(ask, with_text=True)


async def _report(ask: Ask, *, with_text: bool) -> Response:
    job = await ask.of(views.get, ask.db, ids.JOB.parse(ask.path["job"]), tenant_id=ask.caller.tenant_id)
    context = ask.context

    def made() -> str:
        price = context.settings.price_per_device_hour
        return render(gather(ask.db, context.keyring, job, price=price, with_text=with_text), language=ask.language)

    with context.downloads.taken(ask.caller.key_id):
        file = await beside(context.download_threads, made)
    headers = {"content-disposition": f'attachment; filename="{job.label}.html"'}
    return Response(file.encode(), media_type="text/html; charset=utf-8", headers=headers)


routes = [
    page("/jobs/{job}/report", download, scope="batches:read"),
    action("/jobs/{job}/report", download_with_texts, scope="batches:read"),
]
