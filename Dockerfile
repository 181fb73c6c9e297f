# Images of Corral. Targets: control (operator and gateway), runner (CPU), and runner-vulkan, runner-cuda and runner-rocm
# for GPUs: the layers of runner, and one with a backend of ggml and the libraries that it loads.
#
# The images contain Python, the locked dependencies and Corral, but no shell, package manager or compiler.
# Build with BuildKit or buildah. The optional build secret "ca" is a certificate authority for the package registries;
# it is not part of any layer.

ARG BASE=docker.io/library/debian:bookworm-slim
# The version in pyproject.toml; `make images` sets it.
ARG VERSION=dev
# Has the ROCm toolkit in /opt.
ARG ROCM_BASE=docker.io/rocm/dev-ubuntu-22.04:6.4-complete

# Caches of compiled wheels and backends, keyed by version, flags and C library. Build contexts with these names can
# replace them.
FROM scratch AS wheels
FROM scratch AS vulkan-cache
FROM scratch AS cuda-cache

FROM ${BASE} AS python
RUN python3 -c 'import ctypes; ctypes.CDLL("libgomp.so.1"); ctypes.CDLL("libstdc++.so.6")' || { apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/*; }
RUN python3 -m venv /opt/corral
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY images/ /build/images/

FROM python AS tools
COPY requirements/compiler.txt /build/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    /build/images/pip install --require-hashes --only-binary :all: -r /build/compiler.txt

FROM tools AS package
COPY pyproject.toml README.md LICENSE /build/
COPY operator/ /build/operator/
COPY server/ /build/server/
RUN cd /build && /opt/corral/bin/hatchling build -t wheel -d /dist

# The same wheel with the modules on the gateway's request path compiled to C, which takes a minute more.
FROM tools AS compiled
RUN test -e /usr/bin/gcc -a -e /usr/bin/python3-config || { apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*; }
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
COPY requirements/llama.txt requirements/llama-cpp-python.txt /build/requirements/
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

# What compiles a backend: the scripts, and the source by its hash.
FROM python AS backend
COPY pyproject.toml /build/
COPY requirements/llama.txt requirements/llama-cpp-python.txt requirements/cuda.txt /build/requirements/
COPY scripts/llama_wheel.py scripts/ggml_backend.py scripts/llama_vulkan.py scripts/llama_cuda.py scripts/llama_rocm.py \
    /build/scripts/

FROM backend AS vulkan
RUN --mount=type=secret,id=ca,target=/run/secrets/ca --mount=type=bind,from=vulkan-cache,target=/cache \
    /build/images/ggml-backend vulkan /dist glslc spirv-headers libvulkan1

FROM python AS runner-vulkan-env
RUN apt-get update \
    && apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers libxext6 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=vulkan /dist/ /dist/
RUN --mount=type=bind,from=runner-env,source=/rootfs,target=/runner \
    python3 /build/images/backend_files.py /dist/libggml-vulkan.so /runner /rootfs

# CUDA_ARCHITECTURES is CMAKE_CUDA_ARCHITECTURES; empty: llama.cpp's list. It takes hours on few cores.
FROM backend AS cuda
ARG CUDA_ARCHITECTURES=""
RUN --mount=type=secret,id=ca,target=/run/secrets/ca --mount=type=bind,from=cuda-cache,target=/cache \
    CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES} /build/images/ggml-backend cuda /dist

FROM python AS runner-cuda-env
COPY requirements/cuda-runtime.txt /build/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca /build/images/pip install --no-deps --require-hashes \
    --only-binary :all: --target /wheels -r /build/cuda-runtime.txt
COPY --from=cuda /dist/ /dist/
RUN --mount=type=bind,from=runner-env,source=/rootfs,target=/runner \
    python3 /build/images/backend_files.py /dist/libggml-cuda.so /runner /rootfs /wheels

# ROCm was never built so far: its base image was not available.
FROM ${ROCM_BASE} AS rocm-toolkit

FROM backend AS runner-rocm-env
RUN apt-get update \
    && apt-get install -y --no-install-recommends libdrm-amdgpu1 libelf1 libnuma1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=rocm-toolkit /opt/ /opt/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca /build/images/ggml-backend rocm /dist
RUN --mount=type=bind,from=runner-env,source=/rootfs,target=/runner \
    LD_LIBRARY_PATH=/opt/rocm/lib python3 /build/images/backend_files.py /dist/libggml-hip.so /runner /rootfs

FROM scratch AS control
COPY --from=control-env /rootfs/ /
ENV PATH=/opt/corral/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
LABEL org.opencontainers.image.title="corral control" \
      org.opencontainers.image.description="Corral's operator and gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
ARG VERSION
LABEL org.opencontainers.image.version="${VERSION}"
ENTRYPOINT ["/opt/corral/bin/python", "-m"]
CMD ["corral_operator"]

FROM scratch AS runner
COPY --from=runner-env /rootfs/ /
ENV PATH=/opt/corral/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
LABEL org.opencontainers.image.title="corral runner" \
      org.opencontainers.image.description="Corral's inference server" \
      org.opencontainers.image.licenses="Apache-2.0"
ARG VERSION
LABEL org.opencontainers.image.version="${VERSION}"
EXPOSE 8080
ENTRYPOINT ["/opt/corral/bin/python", "-m"]
CMD ["corral_server.runner"]

# NVIDIA's container toolkit mounts its Vulkan driver with the capability "graphics".
FROM runner AS runner-vulkan
COPY --from=runner-vulkan-env /rootfs/ /
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
LABEL org.opencontainers.image.title="corral runner (Vulkan)" \
      org.opencontainers.image.description="Corral's inference server for GPUs of all vendors"

# NVIDIA's container toolkit mounts the driver libraries into the container.
FROM runner AS runner-cuda
COPY --from=runner-cuda-env /rootfs/ /
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="corral runner (CUDA)" \
      org.opencontainers.image.description="Corral's inference server for NVIDIA GPUs"

FROM runner AS runner-rocm
COPY --from=runner-rocm-env /rootfs/ /
COPY --from=runner-rocm-env /opt/rocm/lib/rocblas/library/ /opt/rocm/lib/rocblas/library/
ENV LD_LIBRARY_PATH=/opt/rocm/lib
LABEL org.opencontainers.image.title="corral runner (ROCm)" \
      org.opencontainers.image.description="Corral's inference server for AMD GPUs"
