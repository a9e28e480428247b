# API, dispatcher, webhook worker, migrations: no torch, about 200 MB.
FROM python:3.12-slim AS build
RUN python -m venv /venv
WORKDIR /src
# What changes seldom comes first: a change of the source builds none of these layers again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN for package in guardfleet worker producer api; do mkdir $package && touch $package/__init__.py; done \
 && mkdir -p migrations models/demo && /venv/bin/pip install --no-cache-dir -c constraints.txt ".[api,dispatcher,webhooks,producer]"
COPY . .
RUN /venv/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 guardfleet && install -d -o guardfleet -m 700 /files
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
USER guardfleet
CMD ["guardfleet", "--help"]
