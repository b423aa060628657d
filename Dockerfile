# facegender serve in a container: slim image, non-root user, no writes to disk.
#   docker build -t facegender . && docker run --rm --read-only -p 127.0.0.1:8000:8000 facegender
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /build
COPY pyproject.toml constraints.txt README.md MODEL_CARD.md LICENSE LICENSE-MODEL LICENSE-OPEN ./
COPY recipes recipes
COPY src src
RUN pip install -c constraints.txt ".[serve,heif]"
RUN python -m compileall -q /usr/local/lib/python3.12/site-packages/facegender

WORKDIR /
RUN rm -rf /build && useradd --system --no-create-home --uid 10001 facegender
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["facegender", "serve"]
CMD ["--host", "0.0.0.0", "--port", "8000"]
