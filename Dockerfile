# The production image: the service and the packages of requirements.txt, without local stack and tests.
#
#     docker build --build-arg VIGIA_COMMIT="$(git rev-parse --short=12 HEAD)" --tag vigia:0.2.0 .
#
ARG PYTHON_IMAGE=python:3.11-slim-trixie

FROM ${PYTHON_IMAGE} AS packages
RUN python -m venv /venv
# requirements-numba.txt for catalogues of more than some hundred thousand movies.
ARG REQUIREMENTS=requirements.txt
COPY ${REQUIREMENTS} /build/requirements.txt
# Wheels only: the build compiles nothing, so it and the image need Python only. Then what nobody imports goes:
# the packages' own tests, C sources and headers.
RUN /venv/bin/pip install --disable-pip-version-check --no-input --no-cache-dir \
        --require-hashes --only-binary :all: --requirement /build/requirements.txt \
    && /venv/bin/pip uninstall --disable-pip-version-check --yes --quiet pip setuptools

FROM ${PYTHON_IMAGE} AS vigia
# A fixed number, so that the owner of a volume or of a bind mount can be set from outside.
RUN groupadd --gid 10001 vigia \
    && useradd --uid 10001 --gid vigia --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin vigia \
    && install --directory --owner=vigia --group=vigia --mode=0700 /data /data/tmp
COPY --from=packages /venv /venv
WORKDIR /app
# Owned by root: the service cannot change its own code.
COPY . .
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
# These values only let the settings load; the image does not keep them.
RUN export SECRET_KEY=only-to-collect-static-files DATABASE_URL=postgresql://nowhere/none \
        REDIS_URL=redis://nowhere VIGIA_VAR=/tmp/build \
    && python manage.py collectstatic --no-input --verbosity 0 \
    && python -m docker.start --record \
    && python -m compileall -q --invalidation-mode unchecked-hash /app \
    && chmod --recursive go=rX /app
ARG VIGIA_COMMIT=""
ENV VIGIA_COMMIT=${VIGIA_COMMIT}

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
