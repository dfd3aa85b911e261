FROM python:3.13-slim AS build
WORKDIR /build
RUN python3 -m venv /opt/doorbell
COPY requirements-all.lock ./
RUN /opt/doorbell/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-all.lock
COPY pyproject.toml README.md LICENSE ./
COPY server ./server
RUN /opt/doorbell/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin doorbell \
 && install -d -o doorbell -g doorbell -m 0700 /data \
 && install -d /sites
COPY --from=build /opt/doorbell /opt/doorbell
ENV PATH=/opt/doorbell/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DOORBELL_HOST=0.0.0.0 \
    DOORBELL_SITES_DIR=/sites \
    DOORBELL_DATA_DIR=/data
USER doorbell
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Alive, not ready: a relay that is down is no reason to restart the server. A first start may compress many files.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('DOORBELL_PORT') or 8000}/healthz\", timeout=2)"]
# Exec form: the server is process 1 and hears SIGTERM itself.
CMD ["doorbell", "serve"]
