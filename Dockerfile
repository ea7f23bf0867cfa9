# The HTTP service as a user without privileges: docker build -t featherflow . ; see docs/howto/serve.md
FROM python:3.11-slim-bookworm AS build

WORKDIR /build
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
# PyTorch without CUDA: from its own index, a tenth of the size.
RUN python -m venv /opt/featherflow \
 && /opt/featherflow/bin/pip install --no-cache-dir --constraint constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu ".[serve,video]"

FROM python:3.11-slim-bookworm

COPY --from=build /opt/featherflow /opt/featherflow
RUN useradd --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin featherflow
ENV PATH=/opt/featherflow/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FEATHERFLOW_HOME=/tmp/featherflow
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# FEATHERFLOW_TOKEN in the environment is what requests must bear; without one, anybody who reaches the port is answered.
ENTRYPOINT ["featherflow", "serve", "--host", "0.0.0.0", "--port", "8000"]
