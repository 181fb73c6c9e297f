# Corral's images. Targets: control (operator and gateway), runner (CPU), runner-cuda (not built by the project's tests).
#
# The results are minimal: a Python, the locked dependencies, Corral; no shell, no package manager, no compiler.
# BuildKit or buildah builds it. A certificate authority for the package registries, where one is needed, is the build
# secret "ca" and stays out of every layer.

ARG BASE=docker.io/library/debian:bookworm-slim
ARG CUDA_BASE=docker.io/nvidia/cuda:12.9.1-devel-ubuntu24.04

# Wheels that were compiled before, keyed by version, flags and C library; a build context of this name may bring them.
FROM scratch AS wheels

FROM ${BASE} AS python
RUN python3 -c 'import ctypes; ctypes.CDLL("libgomp.so.1"); ctypes.CDLL("libstdc++.so.6")' || { apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/*; }
RUN python3 -m venv /opt/corral
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY images/ /build/images/

FROM python AS tools
RUN --mount=type=secret,id=ca,target=/run/secrets/ca /build/images/pip install hatchling==1.33.0

FROM tools AS package
COPY pyproject.toml README.md LICENSE /build/
COPY operator/ /build/operator/
COPY server/ /build/server/
RUN cd /build && /opt/corral/bin/hatchling build -t wheel -d /dist

# The same wheel with the gateway's busy modules compiled; it takes a minute more.
FROM tools AS compiled
RUN test -e /usr/bin/gcc -a -e /usr/bin/python3-config || { apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*; }
RUN --mount=type=secret,id=ca,target=/run/secrets/ca /build/images/pip install mypy==2.4.1
COPY pyproject.toml README.md LICENSE /build/
COPY scripts/compile_hook.py /build/scripts/
COPY operator/ /build/operator/
COPY server/ /build/server/
RUN cd /build && HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 /opt/corral/bin/hatchling build -t wheel -d /dist

FROM python AS control-env
COPY requirements/control.txt /build/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    /build/images/pip install --require-hashes --only-binary :all: -r /build/control.txt
COPY --from=compiled /dist/ /dist/
RUN /build/images/pip install --no-deps --no-index /dist/*.whl && python3 /build/images/rootfs.py /rootfs

FROM python AS llama
COPY pyproject.toml /build/
COPY scripts/llama_wheel.py /build/scripts/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca --mount=type=bind,from=wheels,target=/wheels \
    /build/images/llama-wheel /dist

FROM python AS runner-env
COPY requirements/runner.txt /build/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    /build/images/pip install --require-hashes --only-binary :all: -r /build/runner.txt
COPY --from=llama /dist/ /dist/
COPY --from=package /dist/ /dist/
RUN /build/images/pip install --no-deps --no-index /dist/*.whl && python3 /build/images/rootfs.py /rootfs

FROM ${CUDA_BASE} AS runner-cuda-env
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates libgomp1 g++ cmake ninja-build git \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/corral
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY images/ /build/images/
COPY pyproject.toml /build/
COPY scripts/llama_wheel.py /build/scripts/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca --mount=type=bind,from=wheels,target=/wheels \
    CMAKE_ARGS=-DGGML_CUDA=ON /build/images/llama-wheel /dist
COPY requirements/runner.txt /build/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    /build/images/pip install --require-hashes --only-binary :all: -r /build/runner.txt
COPY --from=package /dist/ /dist/
RUN /build/images/pip install --no-deps --no-index /dist/*.whl && python3 /build/images/rootfs.py /rootfs

FROM scratch AS control
COPY --from=control-env /rootfs/ /
ENV PATH=/opt/corral/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
LABEL org.opencontainers.image.title="corral control" \
      org.opencontainers.image.description="Corral's operator and gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/opt/corral/bin/python", "-m"]
CMD ["corral_operator"]

FROM scratch AS runner
COPY --from=runner-env /rootfs/ /
ENV PATH=/opt/corral/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
LABEL org.opencontainers.image.title="corral runner" \
      org.opencontainers.image.description="Corral's inference server" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8080
ENTRYPOINT ["/opt/corral/bin/python", "-m"]
CMD ["corral_server.runner"]

# The driver's own libraries are brought into the container by NVIDIA's container toolkit.
FROM scratch AS runner-cuda
COPY --from=runner-cuda-env /rootfs/ /
ENV PATH=/opt/corral/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
LABEL org.opencontainers.image.title="corral runner (CUDA)" \
      org.opencontainers.image.description="Corral's inference server for NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8080
ENTRYPOINT ["/opt/corral/bin/python", "-m"]
CMD ["corral_server.runner"]
