# The moderating worker. The default build of torch runs on GPUs and CPUs and brings CUDA, some GB; for CPUs alone give TORCH_INDEX,
# the URL of an index with builds that do without it. The version is the pinned one either way.
FROM python:3.12-slim AS build
ARG TORCH_INDEX=
RUN python -m venv /venv
WORKDIR /src
# What changes seldom comes first: a change of the source builds none of these layers again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN if [ -n "$TORCH_INDEX" ]; then /venv/bin/pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch; fi
RUN for package in guardfleet worker producer api; do mkdir $package && touch $package/__init__.py; done \
 && mkdir -p migrations models/demo && /venv/bin/pip install --no-cache-dir -c constraints.txt ".[worker]"
COPY . .
RUN /venv/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.12-slim
# Triton compiles its launchers at the first start on a GPU; without a compiler the steps between the products stay unfused.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --create-home guardfleet && install -d -o guardfleet /models
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 HF_HOME=/models PYTORCH_ALLOC_CONF=expandable_segments:True \
    TRITON_CACHE_DIR=/tmp/triton
USER guardfleet
CMD ["guardfleet", "worker"]
