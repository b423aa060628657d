"""``facegender serve``: the web page and the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from facegender.cli.options import Faces, MinConfidence, Model
from facegender.cli.verb import verb
from facegender.errors import MissingExtraError

if TYPE_CHECKING:
    from facegender.serve.settings import Settings

Host: TypeAlias = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is every interface.")
]
Port: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 is any free port.")
]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Require the token in this file from clients."),
]
CorsOrigins: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="Let pages of this origin use the API; repeat it for more, '*' is all.",
        show_default="none",
    ),
]
MaxImageBytes: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Maximum bytes per image.", show_default="32 MiB"),
]
MaxImagePixels: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Maximum pixels per image.", show_default="100e6"),
]
MaxImages: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Maximum images per request.")
]
MaxRequestBytes: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Maximum bytes per request.", show_default="128 MiB"),
]
MaxInflightBytes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Maximum bytes of images in memory; then 503.",
        show_default="512 MiB",
    ),
]
Queue: TypeAlias = Annotated[
    int, typer.Option(metavar="N", min=1, help="Maximum images in the queue; then 503.")
]
RequestTimeout: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0.1,
        help="Maximum time to receive a request, and again to process it.",
    ),
]
MaxConnections: TypeAlias = Annotated[
    int,
    typer.Option(
        "--max-connections-per-client",
        metavar="N",
        min=0,
        help="Maximum connections per client address; 0 is no limit, for use behind a proxy.",
    ),
]
MaxBatchDelay: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="MS", min=0, help="Maximum time that a face waits for others to share a batch."
    ),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")
]


@verb(
    examples=(
        "facegender serve",
        "facegender serve --port 9000 --model runs/mine",
        "facegender serve --host 0.0.0.0 --token-file token.txt",
        "facegender serve --cors-origin https://example.org",
        "curl -F files=@a.jpg -F files=@b.jpg http://127.0.0.1:8000/predict",
    )
)
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: Model = None,
    faces: Faces = "auto",
    min_confidence: MinConfidence = None,
    token_file: TokenFile = None,
    cors_origins: CorsOrigins = None,
    max_bytes: MaxImageBytes = None,
    max_pixels: MaxImagePixels = None,
    max_images: MaxImages = 64,
    max_request_bytes: MaxRequestBytes = None,
    max_inflight_bytes: MaxInflightBytes = None,
    queue: Queue = 1024,
    timeout: RequestTimeout = 60.0,
    max_connections: MaxConnections = 256,
    max_batch_delay_ms: MaxBatchDelay = 5.0,
    quiet: Quiet = False,
) -> int:
    """Serve a web page for people and an HTTP API for programs.

    Images stay in memory and are never stored or logged. Ctrl-C or SIGTERM
    stops the server after the requests in progress.

    Exit codes: 0, stopped by SIGTERM, every request has its response; 2, wrong
    use, or the server could not start; 130, stopped by Ctrl-C; 143, stopped by
    SIGTERM with requests left.
    """
    try:
        from facegender.serve import logs, server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("facegender"):
            raise
        raise MissingExtraError("serve", error.name) from error
    from facegender.inference.classifier import Classifier

    settings = _settings(
        token_file,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_request_bytes=max_request_bytes,
        max_inflight_bytes=max_inflight_bytes,
        cors_origins=tuple(origin.removesuffix("/") for origin in cors_origins or ()),
        faces=faces,
        min_confidence=min_confidence,
        max_images=max_images,
        queue_size=queue,
        timeout_seconds=timeout,
        max_connections_per_client=max_connections,
        max_batch_delay_ms=max_batch_delay_ms,
    )
    classifier = Classifier.load(model)
    listening = server.listen(host, port)
    url = server.url_of(listening)
    logs.configure(quiet=quiet)
    server.run(
        classifier,
        settings,
        listening,
        lambda: typer.echo(f"Listening on {url} (page: /, API: /docs). Press Ctrl-C to stop."),
    )
    return 0


def _settings(
    token_file: Path | None,
    *,
    max_bytes: int | None,
    max_pixels: int | None,
    max_request_bytes: int | None,
    max_inflight_bytes: int | None,
    **options: object,
) -> Settings:
    """Build the settings; an option that was not given has the default of ``Settings``."""
    from facegender.images.formats import ImageLimits
    from facegender.serve.settings import Settings, read_token

    defaults = Settings()
    return Settings(
        limits=ImageLimits(
            max_pixels or defaults.limits.pixels, max_bytes or defaults.limits.bytes
        ),
        max_request_bytes=max_request_bytes or defaults.max_request_bytes,
        max_inflight_bytes=max_inflight_bytes or defaults.max_inflight_bytes,
        token="" if token_file is None else read_token(token_file),
        **options,  # type: ignore[arg-type]
    )
