# scripts/gpu_check.sh in a container: docker build -f scripts/gpu_check.Dockerfile -t rexport-gpu .
# CUDA comes with the packages of pip, and the driver (580 or later) with the host's container toolkit.
FROM python:3.12-slim

# Inductor compiles C++.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 rexport \
    && install --directory --owner=rexport /rexport /results
WORKDIR /rexport
COPY --chown=rexport pyproject.toml README.md LICENSE ./
COPY --chown=rexport exporter exporter
COPY --chown=rexport runtimes runtimes
COPY --chown=rexport benchmarks benchmarks
COPY --chown=rexport rexport rexport
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[export,gpu,tensorrt,int8,images,report]' \
        'hypothesis' 'psutil' 'pytest' 'pytest-timeout' 'pytest-xdist'
COPY --chown=rexport . .

USER 1000
ENV PYTHON=python3
VOLUME ["/results"]
ENTRYPOINT ["bash", "scripts/gpu_check.sh", "/results"]
