# API, dispatcher, webhook worker, migrations: no torch, about 200 MB. Built from the root:  docker build -f deploy/service.Dockerfile .
# Runs as any user on a read-only root: only /files and /tmp are written to, both mounted.
FROM python:3.12.13-slim-bookworm AS wheel
WORKDIR /src
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY guardfleet guardfleet
COPY worker worker
COPY producer producer
COPY api api
COPY migrations migrations
COPY models/demo models/demo
COPY models/ai-text-demo models/ai-text-demo
RUN pip wheel --no-deps --wheel-dir /dist .

# Dependencies alone: a change of the source builds none of these layers again, and pushes none of them.
FROM python:3.12.13-slim-bookworm AS dependencies
WORKDIR /src
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Add s3 for files in object storage:  --build-arg EXTRAS=api,dispatcher,webhooks,producer,traces,s3
ARG EXTRAS=api,dispatcher,webhooks,producer,traces
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN python requirements.py "$EXTRAS" > requirements.txt \
 && python -m venv /venv \
 && /venv/bin/pip install -r requirements.txt

FROM python:3.12.13-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home guardfleet \
 && install -d -o guardfleet -g 0 -m 770 /files
COPY --from=dependencies /venv /venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /venv/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
USER 10001
CMD ["guardfleet", "--help"]
