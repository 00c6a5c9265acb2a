# One image for Docker, Podman and (by Apptainer.def) Apptainer. A first draft: it has not been built on a GPU
# machine yet. Build: docker build --build-arg BASE_IMAGE=<an nvidia/cuda runtime> -t giblet-hpc .
ARG BASE_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04
FROM ${BASE_IMAGE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ibverbs-providers libibverbs1 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
COPY pyproject.toml container/run.lock /tmp/lock/
RUN python3 -m venv /opt/giblet \
    && /opt/giblet/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/lock/run.lock \
    && /opt/giblet/bin/pip install --no-cache-dir \
        "$(sed -n 's/.*"\(torch==[0-9.]*\)".*/\1/p' /tmp/lock/pyproject.toml)"

FROM base
COPY --from=build /opt/giblet /opt/giblet
COPY . /opt/src
RUN /opt/giblet/bin/pip install --no-cache-dir --no-deps --no-build-isolation /opt/src && rm -rf /opt/src
ENV PATH=/opt/giblet/bin:$PATH PYTHONNOUSERSITE=1 LANG=C.UTF-8
ENTRYPOINT ["/opt/giblet/bin/giblet-hpc"]
