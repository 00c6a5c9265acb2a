# One image: for Docker and Podman as it is, for Apptainer through Apptainer.def.
#
#   container/build.sh                           on the pinned CUDA runtime
#   container/build.sh --base localhost/base     on a base of your own, such as one without CUDA
#
# No NCCL_* and no LD_LIBRARY_PATH is set here: under Apptainer an image's value silently wins over
# the user's. No USER: Apptainer runs as whoever calls, and so may the others (--user).
ARG BASE_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04@sha256:c3fde347d52d578c84fd644bc177bc7ec333feaf11550d990da4084d7612e4c7

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS system
# The verbs providers let NCCL see InfiniBand; without them it uses sockets and does not say so.
ARG PACKAGES="python3 python3-venv libibverbs1 ibverbs-providers"
# Package lists are fetched only where the base lacks something, so that a complete base builds offline.
# hadolint ignore=DL3008,SC2086
RUN dpkg --status ${PACKAGES} >/dev/null 2>&1 || { apt-get update \
    && apt-get install -y --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*; }

# Our own wheel is built in a stage of its own, so that a change of the code redoes nothing else.
FROM system AS code
# Such as --build-arg PIP_OPTIONS="--no-index --find-links=/wheelhouse", with the folder mounted.
ARG PIP_OPTIONS=""
COPY container/run.lock /locks/
# hadolint ignore=SC2086
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/pip && grep -A2 '^setuptools==' /locks/run.lock >/locks/build.lock \
    && /opt/pip/bin/pip install ${PIP_OPTIONS} --no-cache-dir --no-deps --require-hashes \
        -r /locks/build.lock
COPY pyproject.toml README.md LICENSE /source/
COPY giblet_hpc /source/giblet_hpc
# Installed into an environment at the image's own path, of which the image takes our files alone.
RUN /opt/pip/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation \
        -w /wheels /source \
    && python3 -m venv /opt/giblet \
    && /opt/giblet/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
WORKDIR /opt/giblet
RUN mkdir /ours \
    && cp --archive --parents bin/giblet-hpc lib/python3*/site-packages/giblet_hpc* /ours

# Weights are checked in a stage of their own: every file has to be in SHA256SUMS.
FROM system AS weights
ARG WEIGHTS=container/weights
COPY --chmod=755 ${WEIGHTS} /opt/weights
COPY --chmod=755 container/weights/check.sh /opt/check-weights
RUN ["/opt/check-weights", "/opt/weights"]

# What changes least comes first: a change of the code ships only the last layers.
FROM system AS image
COPY --from=weights /opt/weights /opt/weights
ARG TORCH_LOCK=container/cuda.lock
ARG PIP_OPTIONS=""
COPY ${TORCH_LOCK} /locks/torch.lock
# setuptools comes first where the lock has it: encodec is published as sources alone.
# hadolint ignore=SC2086
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/giblet \
    && { grep -A2 '^setuptools==' /locks/torch.lock >/locks/build.lock || true; } \
    && /opt/giblet/bin/pip install ${PIP_OPTIONS} --no-cache-dir --no-deps --require-hashes \
        -r /locks/build.lock \
    && /opt/giblet/bin/pip install ${PIP_OPTIONS} --no-cache-dir --no-deps --no-build-isolation \
        --require-hashes -r /locks/torch.lock
COPY container/run.lock /locks/
# hadolint ignore=SC2086
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/giblet/bin/pip install ${PIP_OPTIONS} --no-cache-dir --no-deps --require-hashes \
        -r /locks/run.lock
COPY --from=code /ours /opt/giblet
# HOME is mounted there: on a root that cannot be written the place has to exist.
RUN mkdir /opt/giblet-home \
    && /opt/giblet/bin/python -m giblet_hpc.stages.inventory >/opt/giblet-sbom.cdx.json
# An empty PYTHONPATH keeps the host's out, a safe path the packages of the working folder.
ENV PATH=/opt/giblet/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH= \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    LANG=C.UTF-8
ARG VERSION=0.1.0
ARG REVISION=unknown
# Those of container/cuda.lock; build.sh names others for other locks.
ARG TORCH=2.13.0
ARG CUDA=13.0
ARG NCCL=2.29.7
ARG MINIMUM_DRIVER=580.65.06
LABEL org.opencontainers.image.title="giblet-hpc" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="MIT" \
    hpc.giblet.torch="${TORCH}" \
    hpc.giblet.cuda="${CUDA}" \
    hpc.giblet.nccl="${NCCL}" \
    hpc.giblet.minimum-driver="${MINIMUM_DRIVER}"
ENTRYPOINT ["/opt/giblet/bin/giblet-hpc"]
