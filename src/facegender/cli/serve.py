"""``facegender serve``: the page and the API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facegender.cli.verb import verb
from facegender.errors import MissingExtraError


@verb(
    examples=(
        "facegender serve",
        "facegender serve --port 9000 --model runs/mine",
        "facegender serve --host 0.0.0.0 --token-file token.txt",
        "curl -F files=@a.jpg -F files=@b.jpg http://127.0.0.1:8000/predict",
    )
)
def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is for everybody.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes one that is free.")
    ] = 8000,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|RUN",
            help="A model file or run folder of your own.",
            show_default="the one shipped",
        ),
    ] = None,
    faces: Annotated[
        str,
        typer.Option(
            metavar="auto|detect|whole", help="How faces are found, where a request does not say."
        ),
    ] = "auto",
    min_confidence: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0.5,
            max=1.0,
            help="Answers with a probability below this are 'unknown'.",
            show_default="the model's own",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Answer only requests that bring the token in this file."
        ),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most bytes of a picture.", show_default="32 MiB"),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most pixels of a picture.", show_default="100e6"),
    ] = None,
    max_files: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most pictures of a request.")
    ] = 64,
    max_request_bytes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most bytes of a request.", show_default="128 MiB"),
    ] = None,
    max_inflight_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Most bytes of all pictures at once.", show_default="512 MiB"
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most pictures that wait; then 503.")
    ] = 1024,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, help="For a request to come in, then to be answered."
        ),
    ] = 60.0,
    max_batch_delay_ms: Annotated[
        float,
        typer.Option(metavar="MS", min=0, help="A face waits so long for others to go with it."),
    ] = 5.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log only what goes wrong.")] = False,
) -> int:
    """Answer over HTTP: a page for people, an API for programs.

    Pictures stay in memory and are neither stored nor logged. Ends with Ctrl-C
    or SIGTERM, once what is under way is answered.

    Exit codes: 2, wrong use, or it could not start; 130 and 143, stopped.
    """
    try:
        from facegender.serve import logs, server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("facegender"):
            raise
        raise MissingExtraError("serve", error.name) from error
    from facegender.images.formats import ImageLimits
    from facegender.inference.classifier import Classifier
    from facegender.serve.settings import Settings, read_token

    defaults = Settings()
    settings = Settings(
        faces=faces,
        min_confidence=min_confidence,
        limits=ImageLimits(
            max_pixels or defaults.limits.pixels, max_bytes or defaults.limits.bytes
        ),
        files=max_files,
        request_bytes=max_request_bytes or defaults.request_bytes,
        held_bytes=max_inflight_bytes or defaults.held_bytes,
        queue=queue,
        seconds=timeout,
        gather_seconds=max_batch_delay_ms / 1000,
        token="" if token_file is None else read_token(token_file),
    )
    classifier = Classifier.load(model)
    listening = server.listen(host, port)
    address = server.url_of(listening)
    logs.set_up(quiet=quiet)
    server.run(
        classifier,
        settings,
        listening,
        lambda: typer.echo(f"listening on {address} (page: /, API: /docs; Ctrl-C ends it)"),
    )
    return 0
