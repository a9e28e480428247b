"""A job's report as a download: one HTML file that can be sent to others."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.routing import page
from api.http.head_method import has_body
from api.http.threads import beside
from guardfleet.domain import ids
from guardfleet.report.contents import gather
from guardfleet.report.rendering import render
from guardfleet.store.jobs import views


async def download(ask: Ask) -> Response:
    """Send the report; with `texts=1` the examples have their texts, and it is recorded as an export."""
    job = await ask.of(views.get, ask.db, ids.JOB.parse(ask.path["job"]), tenant_id=ask.caller.tenant_id)
    with_text = ask.query.get("texts") == "1" and has_body(ask.request)  # whoever asks for the head alone exports nothing
    context = ask.context

    def made() -> str:
        price = context.settings.price_per_device_hour
        return render(gather(ask.db, context.keyring, job, price=price, with_text=with_text), language=ask.language)

    with context.downloads.taken(ask.caller.key_id):
        file = await beside(context.download_threads, made)
    headers = {"content-disposition": f'attachment; filename="{job.label}.html"'}
    return Response(file.encode(), media_type="text/html; charset=utf-8", headers=headers)


routes = [page("/jobs/{job}/report", download, scope="batches:read")]
