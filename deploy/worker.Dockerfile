# The moderating worker, on GPU or CPU: the wheel of torch decides, and runs on both.
FROM python:3.12-slim AS build
RUN python -m venv /venv
WORKDIR /src
COPY . .
RUN grep -v '^torch==' constraints.txt > /constraints.txt && /venv/bin/pip install --no-cache-dir -c /constraints.txt ".[worker]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home guardfleet && install -d -o guardfleet /models
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 HF_HOME=/models PYTORCH_ALLOC_CONF=expandable_segments:True
USER guardfleet
CMD ["guardfleet", "worker"]
