# The moderating worker. Built from the root:  docker build -f deploy/worker.Dockerfile .
# TORCH=cuda (the default) takes torch from the package index, whose build brings CUDA, some GB; TORCH=cpu takes it from TORCH_INDEX,
# the URL of an index with builds for CPUs alone. The version is the pinned one either way.
# Runs as any user on a read-only root: only /models and /tmp are written to, both mounted. /models must allow execution (Triton).
ARG TORCH=cuda

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

# torch has a layer of its own, the largest: it changes only with its pin.
FROM python:3.12.13-slim-bookworm AS python
WORKDIR /src
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN python -m venv /venv

FROM python AS torch-cuda
RUN /venv/bin/pip install torch

FROM python AS torch-cpu
ARG TORCH_INDEX=
RUN /venv/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

# Dependencies alone: a change of the source builds none of these layers again, and pushes none of them.
# hadolint ignore=DL3006
FROM torch-${TORCH} AS dependencies
WORKDIR /src
COPY pyproject.toml deploy/requirements.py ./
RUN python requirements.py worker,traces > requirements.txt \
 && /venv/bin/pip install -r requirements.txt

FROM python:3.12.13-slim-bookworm
# Triton compiles its launchers at the first start on a GPU; without a compiler the steps between the products stay unfused.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home guardfleet \
 && install -d -o guardfleet -g 0 -m 770 /models
COPY --from=dependencies /venv /venv
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /venv/bin/pip install --no-cache-dir --no-index --no-deps /dist/*.whl
# What libraries keep between starts lies beside the models: digests of their files, what Triton and CUDA compiled.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models GUARDFLEET_DATA_DIR=/models/.guardfleet XDG_CACHE_HOME=/models/.cache TRITON_CACHE_DIR=/models/.cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/models/.cache/inductor CUDA_CACHE_PATH=/models/.cache/cuda \
    PYTORCH_ALLOC_CONF=expandable_segments:True NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A number, so that Kubernetes can see that it is not root.
USER 10001
CMD ["guardfleet", "worker"]
