"""Routes of the explorer, and the checks of each request.

    /                                        the store: runs and generations
    /runs/<run>                              overview
    /runs/<run>/report                       the report that the run wrote
    /runs/<run>/rows?where=...&page=...      the table
    /runs/<run>/question/<id>                one question
    /runs/<run>/rows.jsonl?...               the same rows as a file; csv, parquet
    /runs/<run>/answers?split=test           the student's answers
    /compare?run=<run>&run=<run>             two or more runs
    POST /runs/<run>/mark                    a curator's mark

Pages of other sites can also send requests to a server on the loopback. Therefore a request must
name this machine as its host, a mark must come from one of our pages, and pages may load only our
style sheet and script.
"""

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from explorer import overview, pages
from explorer.comparison import compare_page
from explorer.data import Explorer
from qcrd_core.errors import ConfigError, DataError, QcrdError
from qcrd_core.inspect.export import export_rows
from qcrd_core.inspect.view import Generation, View
from qcrd_core.registry.registry import (
    find_version,
    model_names,
    read_champion,
    version_names,
)
from qcrd_core.report.html import PAGE_CSS, templates
from qcrd_core.run.records import Result
from qcrd_core.store.parts import collect
from qcrd_core.store.store import Store
from qcrd_core.vote.curation import write_mark

_HERE = Path(__file__).parent
_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
_MAX_FORM_BYTES = 64 * 1024
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers would send `Origin: null` with our own forms too, and we could not
    # tell them from forms of other sites.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_REPORT_HEADERS = {
    **_HEADERS,
    # The report comes from the store, which somebody else may have written: nothing in it runs.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'",
}

Handler = Callable[[Request], Awaitable[Response]]


def make_app(explorer: Explorer) -> Starlette:
    """Build the application.

    Args:
        explorer: The store.

    Returns:
        A Starlette application.
    """
    render = _renderer()

    def page(template: str, make: Callable[[Request], dict[str, Any]]) -> Handler:
        async def handler(request: Request) -> Response:
            try:
                values = await run_in_threadpool(make, request)
            except QcrdError as error:
                status = 400 if isinstance(error, ConfigError) else 404
                title = "Not understood" if status == 400 else "Not found"
                shown = {"title": title, "message": str(error)}
                return HTMLResponse(render("error.html.jinja", shown), status, _HEADERS)
            return HTMLResponse(render(template, values), headers=_HEADERS)

        return handler

    def of_run(request: Request) -> View:
        return explorer.view(request.path_params["run"])

    def store_page(_: Request) -> dict[str, Any]:
        whole = View(explorer.store, None)
        rows = [_row(View(explorer.store, run_id)) for run_id in explorer.run_ids]
        rows.sort(key=lambda row: str(row["started_at"]), reverse=True)
        sizes = [(each, *_size(whole, each)) for each in whole.generations]
        return {
            "store": str(explorer.store),
            "runs": rows,
            "ticked": [row["run_id"] for row in rows if row.get("result")][:2],
            "generations": sizes,
            "models": [_model(explorer.store, name) for name in model_names(explorer.store)],
        }

    def with_run(make: Callable[[View, dict[str, str]], dict[str, Any]]) -> Any:
        def made(request: Request) -> dict[str, Any]:
            view = of_run(request)
            query = {name: value[:2000] for name, value in request.query_params.items()}
            return {
                "view": view,
                "run_id": view.run_id,
                **make(view, query),
                "here": str(request.url),
            }

        return made

    def question(request: Request) -> dict[str, Any]:
        name = request.path_params["question"]
        return with_run(lambda v, q: pages.question_page(explorer, v, name, q))(request)  # type: ignore[no-any-return]

    def compare(request: Request) -> dict[str, Any]:
        names = dict.fromkeys(request.query_params.getlist("run"))
        return compare_page([explorer.view(name) for name in names])

    def report(request: Request) -> Response:
        try:
            view = of_run(request)
            content = view.store.read_bytes(view.paths.report)
        except QcrdError as error:
            shown = {"title": "Not found", "message": str(error)}
            return HTMLResponse(render("error.html.jinja", shown), 404, _HEADERS)
        return HTMLResponse(content, headers=_REPORT_HEADERS)

    def export(request: Request) -> Response:
        ending = request.path_params["ending"]
        folder = Path(tempfile.mkdtemp(prefix="qcrd-export-"))
        remove = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        try:
            view = of_run(request)
            target = folder / f"{view.run_id}.{ending}"
            export_rows(view, target, pages.condition(dict(request.query_params)))
        except QcrdError as error:
            shown = {"title": "Not exported", "message": str(error)}
            content = render("error.html.jinja", shown)
            return HTMLResponse(content, 400, _HEADERS, background=remove)
        return FileResponse(target, filename=target.name, headers=_HEADERS, background=remove)

    async def mark(request: Request) -> Response:
        origin = request.headers.get("origin", "")
        if urlsplit(origin).netloc != request.headers.get("host"):
            msg = "The mark was not saved: it must come from a page of the explorer."
            return PlainTextResponse(msg, 403)
        body = await request.body()
        if len(body) > _MAX_FORM_BYTES:
            limit = f"{_MAX_FORM_BYTES // 1024} KiB"
            return PlainTextResponse(f"The mark was not saved: it must be below {limit}.", 413)
        sent = parse_qs(body.decode("utf-8", "replace"))
        form = {name: values[0] for name, values in sent.items()}
        try:
            view = of_run(request)
            await run_in_threadpool(_mark, view, form, sent.get("sample_idx", []))
        except (QcrdError, KeyError, ValueError) as error:
            return PlainTextResponse(f"The mark was not saved: {error}", 400)
        back = urlsplit(form.get("back", "/"))
        target = back.path + (f"?{back.query}" if back.query else "")
        anchor = f"#{form['anchor']}" if form.get("anchor", "").isidentifier() else ""
        return RedirectResponse(("/" + target.lstrip("/\\")) + anchor, 303)

    routes = [
        Route("/", page("store.html.jinja", store_page)),
        Route("/compare", page("compare.html.jinja", compare)),
        Route(
            "/runs/{run}",
            page("run.html.jinja", with_run(lambda v, _: overview.run_page(explorer, v))),
        ),
        Route(
            "/runs/{run}/rows",
            page("rows.html.jinja", with_run(lambda v, q: pages.rows_page(explorer, v, q))),
        ),
        Route("/runs/{run}/rows.{ending}", export),
        Route("/runs/{run}/answers", page("answers.html.jinja", with_run(pages.answers_page))),
        Route("/runs/{run}/question/{question:path}", page("question.html.jinja", question)),
        Route("/runs/{run}/report", report),
        Route("/runs/{run}/mark", mark, methods=["POST"]),
        Route("/report.css", _report_style),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)
    return Starlette(routes=routes, middleware=[hosts])


def serve(
    store: str, *, address: tuple[str, int], scratch: Path, announce: Callable[[str], None]
) -> None:
    """Serve a store until the process is interrupted.

    Args:
        store: Folder or URL of the store, or of one of its runs.
        address: Host and port to listen on.
        scratch: Folder that holds indexes of parts.
        announce: Called with the address of the pages.

    Raises:
        StoreError: If there is no store.
    """
    app = make_app(Explorer(store, scratch))
    host, port = address
    announce(f"http://127.0.0.1:{port}/")
    uvicorn.run(app, host=host, port=port, log_level="warning")


async def _report_style(_: Request) -> Response:
    """The report's style sheet, for colours, tables and cards."""
    return PlainTextResponse(PAGE_CSS, media_type="text/css")


def _mark(view: View, form: dict[str, str], samples: list[str]) -> None:
    """Mark one sample, or several with the same text; nothing if one of them is unknown."""
    dataset = view.dataset
    if dataset is None:
        msg = f"Run {view.run_id} has not begun, so it has no rationales to mark."
        raise DataError(msg)
    generation, question_id = form["generation"], form["question_id"]
    rows = view.rationales([question_id]).filter(pl.col("generation") == generation)
    known = collect(rows.select(pl.col("sample_idx").cast(pl.String)), str(view.run_id))
    unknown = [sample for sample in samples if sample not in known["sample_idx"]]
    if unknown or not samples:
        msg = (
            f"Run {view.run_id} has no sample {(unknown or [''])[0]!r} of question {question_id!r}."
        )
        raise DataError(msg)
    first = view.first_numbers.get(generation, 0)
    for sample in samples:
        key = (generation, question_id, int(sample) - first)  # marks are of the generation
        write_mark(view.store, dataset, key, form["mark"], form.get("comment"))  # type: ignore[arg-type]


def _row(view: View) -> dict[str, Any]:
    """A run in the list; what is wrong with one run hides no other."""
    path, shown = view.paths.result, {"run_id": view.run_id, "dataset": None, "started_at": None}
    try:
        begun = view.checked().environment
        result = view.store.read_json(path, Result) if view.store.exists(path) else None
    except QcrdError as error:
        return {**shown, "problem": str(error)}
    return {
        **shown,
        "dataset": begun and begun.dataset,
        "started_at": begun and begun.started_at,
        "result": result,
    }


def _model(store: Store, name: str) -> dict[str, Any]:
    """A model in the list: its champion, or what is wrong with it."""
    try:
        champion = read_champion(store, name)
        version = None if champion.version is None else find_version(store, name, champion.version)
    except QcrdError as error:
        return {"name": name, "problem": str(error)}
    num_versions = len(version_names(store, name))
    latest = champion.history[-1] if champion.history else None
    return {"name": name, "version": version, "num_versions": num_versions, "latest": latest}


def _size(view: View, generation: Generation) -> tuple[int, str | None]:
    """Rows of a generation, or what is wrong with it."""
    try:
        return view.generation_folder(generation).num_rows, None
    except QcrdError as error:
        return 0, str(error)


def _renderer() -> Callable[[str, dict[str, Any]], str]:
    environment = templates(_HERE / "templates")
    return lambda name, values: environment.get_template(name).render(values)
