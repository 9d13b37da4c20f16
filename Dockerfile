# syntax=docker/dockerfile:1
# The server and its client in an image, built by the scripts of deploy/.
#
#   docker build -t cupola .                                         CPU
#   docker build -t cupola --build-arg VARIANT=cuda \
#     --build-arg TORCH_INDEX=... .                                  CUDA
#
# TORCH_INDEX is the package index that has the wanted torch build (the PyTorch
# site names one for CPU and one for each CUDA version); without it pip's own
# index decides. Run with the catalog, its models and a place for the cache:
#
#   docker run -p 7070:7070 -p 7071:7071 -v "$PWD/catalog":/catalog:ro \
#     -v cupola-cache:/cache cupola           (CUDA: and --gpus all)
ARG VARIANT=cpu

FROM debian:12-slim AS base-cpu
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS base-cuda

# hadolint ignore=DL3006
FROM base-${VARIANT} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG TORCH_INDEX=
ENV CUPOLA_TORCH_INDEX=${TORCH_INDEX}
WORKDIR /opt/cupola
# Dependencies first: they change less often than the sources.
COPY deploy/common.sh deploy/install-deps.sh deploy/requirements.txt deploy/
RUN apt-get update -qq \
  && apt-get install -y -qq --no-install-recommends ca-certificates \
  && deploy/install-deps.sh \
  && rm -rf /var/lib/apt/lists/* /root/.cache
COPY . .
RUN deploy/install-deps.sh --python-only \
  && CUPOLA_CMAKE_ARGS="-DCUPOLA_BUILD_TESTS=OFF" \
     deploy/build.sh cupola_server
# What the program needs at run time: the packages of its system libraries, and
# the Python environment, whose torch folder its run path names.
RUN deploy/runtime-packages.sh build/cupola_server > runtime-packages.txt

FROM debian:12-slim AS runtime-cpu
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS runtime-cuda

# hadolint ignore=DL3006
FROM runtime-${VARIANT}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY --from=build /opt/cupola/runtime-packages.txt /tmp/
# hadolint ignore=DL3008
RUN apt-get update -qq \
  && xargs -a /tmp/runtime-packages.txt \
     apt-get install -y -qq --no-install-recommends python3 \
  && rm -rf /var/lib/apt/lists/* /tmp/runtime-packages.txt \
  && useradd --system --create-home cupola \
  && install -d -o cupola -g cupola -m 0700 /cache
COPY --from=build /opt/cupola/.venv /opt/cupola/.venv
COPY --from=build /opt/cupola/client/python /opt/cupola/client/python
COPY --from=build /opt/cupola/build/cupola_server /opt/cupola/build/
ENV PATH=/opt/cupola/build:/opt/cupola/.venv/bin:${PATH}
USER cupola
EXPOSE 7070 7071
VOLUME ["/cache"]
HEALTHCHECK --start-period=120s --interval=30s --timeout=5s CMD ["python", \
  "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7071/healthz')"]
# What reaches the container's ports is decided outside of it: publish them on
# addresses you trust, or give --tls_cert, --tls_key and --tokens.
# SIGTERM drains: give it `docker stop --time 60`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["cupola_server"]
CMD ["--catalog", "/catalog/catalog.textproto", "--listen", "0.0.0.0:7070", \
  "--http", "0.0.0.0:7071", "--insecure_public", "--cache_dir", "/cache"]
