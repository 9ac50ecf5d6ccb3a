# The image, in three: `train` runs on the spot VM, `train-cpu` is the same without CUDA, `slim` is the laptop and the
# watchdog. `make image TARGET=slim` builds one; `docker build .` builds `train`.
#
#   BASE_IMAGE   Debian 12. `make image` looks its digest up and passes NAME@sha256:...; so do builds that are pushed.
#                By hand: docker buildx imagetools inspect debian:bookworm-slim (docs/operations.md, The image)
#   UNSLOTH      `no` leaves out Unsloth, parts of which are AGPL and LGPL
#   TORCH_INDEX  where PyTorch's CPU build is; not asked where the build context `wheels` holds it
#   REVISION     commit, for the label
#
# Nothing here is a secret. `--secret id=ca,src=FILE` lends the build the certificates of a proxy.
# What changes most seldom comes first: a new commit makes one small layer, the last.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# Replaced by `--build-context wheels=FOLDER`.
FROM scratch AS wheels

# hadolint ignore=DL3006 # by digest, see above
FROM ${BASE_IMAGE} AS system
# Versions are those of the base image's day; nothing here needs one in particular.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
    && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
    && useradd --uid 1000 --home-dir /cache/home --shell /usr/sbin/nologin baton \
    && install --directory --owner baton --group baton /cache /cache/home
ENV PATH=/opt/venv/bin:/baton/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/baton \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/cache/home \
    XDG_CACHE_HOME=/cache
WORKDIR /baton

# What installs packages; the last step that needs it takes it away.
FROM system AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip-whl \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /opt/tools \
    && cp /usr/share/python-wheels/pip-*.whl /opt/tools/pip.whl
COPY docker/install.sh /opt/tools/

FROM system AS python
RUN python3 -m venv --without-pip /opt/venv
COPY --from=tools /opt/tools /opt/tools

# The project, compiled: the root file system may be read-only.
FROM python AS project
COPY docker/baton docker/healthcheck.sh /project/baton/bin/
COPY docker/smoke.py /project/baton/docker/
COPY LICENSE entrypoint.sh pyproject.toml /project/baton/
COPY data /project/baton/data
COPY recipes /project/baton/recipes
COPY job /project/baton/job
COPY infra /project/baton/infra
RUN rm -rf /project/baton/infra/localcloud \
    && python -m compileall -q --invalidation-mode unchecked-hash -s /project /project/baton/job /project/baton/infra

FROM python AS slim
COPY docker/requirements-base.txt /opt/locks/
RUN --mount=type=secret,id=ca /opt/tools/install.sh base && rm -r /opt/tools
COPY --from=project /project /
RUN python docker/smoke.py base
USER baton
ENTRYPOINT ["baton"]
CMD ["--help"]
ARG REVISION
ENV BATON_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="baton slim" \
    org.opencontainers.image.description="Baton without torch: the laptop's commands and the watchdog" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${REVISION}"

FROM python AS train-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/requirements-torch-cpu.txt /opt/locks/
RUN --mount=type=secret,id=ca --mount=type=bind,from=wheels,target=/opt/wheels \
    TORCH_INDEX="$TORCH_INDEX" /opt/tools/install.sh torch-cpu
COPY docker/requirements-base.txt docker/requirements-train.txt /opt/locks/
RUN --mount=type=secret,id=ca /opt/tools/install.sh base train && rm -r /opt/tools
COPY --from=project /project /
RUN python docker/smoke.py torch-cpu base train
USER baton
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m CMD ["healthcheck.sh"]
ENTRYPOINT ["/baton/entrypoint.sh"]
ARG REVISION
ENV BATON_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="baton train-cpu" \
    org.opencontainers.image.description="Baton's attempts on a CPU: for CI and to try it" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${REVISION}"

FROM python AS train
# Triton compiles its launchers when they are first needed: a C compiler and Python's headers, and nothing else does.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpython3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY docker/requirements-torch-cuda.txt /opt/locks/
RUN --mount=type=secret,id=ca /opt/tools/install.sh torch-cuda
COPY docker/requirements-gpu.txt /opt/locks/
RUN --mount=type=secret,id=ca /opt/tools/install.sh gpu
COPY docker/requirements-base.txt docker/requirements-train.txt /opt/locks/
RUN --mount=type=secret,id=ca /opt/tools/install.sh base train
ARG UNSLOTH=yes
COPY docker/requirements-unsloth.txt /opt/locks/
RUN --mount=type=secret,id=ca \
    if [ "$UNSLOTH" = yes ]; then /opt/tools/install.sh unsloth; fi
# What the NVIDIA container toolkit brings in, and the oldest driver that CUDA 13 works with (entrypoint.sh).
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BATON_NEEDS_DRIVER=580
COPY --from=project /project /
RUN if [ "$UNSLOTH" = yes ]; then set -- unsloth; fi; python docker/smoke.py torch-cuda gpu base train "$@"
USER baton
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m CMD ["healthcheck.sh"]
ENTRYPOINT ["/baton/entrypoint.sh"]
ARG REVISION
ENV BATON_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="baton train" \
    org.opencontainers.image.description="Baton's attempts on a GPU; needs NVIDIA's driver 580 or newer" \
    org.opencontainers.image.licenses="Apache-2.0 AND AGPL-3.0-only AND LGPL-3.0-only" \
    org.opencontainers.image.revision="${REVISION}"
