# The runner's own image: `connector` on Python, for pipelines of programs that are in the image or mounted into it.
#
#   docker build -t connector-runner .
#   docker run --rm --init --read-only --tmpfs /tmp -v "$PWD:/pipeline:ro" connector-runner run
#
# docs/images.md has the rest. `pip` is told where packages are by what the build is given (--build-arg PIP_INDEX_URL=…).

FROM python:3.13-slim-trixie AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
# Libraries first: they change less often than the runner does.
WORKDIR /source
COPY pyproject.toml ./
RUN python3 -m venv --without-pip /opt/connector \
 && python3 -c 'import tomllib; its = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    print(*its["dependencies"], *its["optional-dependencies"]["nats"], sep="\n")' >/tmp/libraries \
 && python3 -m pip --python /opt/connector/bin/python install --no-cache-dir --requirement /tmp/libraries
COPY README.md CHANGELOG.md LICENSE hatch_build.py ./
COPY images images
COPY runner runner
RUN python3 -m pip --python /opt/connector/bin/python install --no-cache-dir --no-deps .

FROM python:3.13-slim-trixie
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Connector runner" \
      org.opencontainers.image.description="Runs programs in any language as one pipeline: supervised, restarted without losing messages, every message accounted for." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="The connector runner maintainers" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie"
RUN groupadd --gid 65532 connector \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin connector \
 && install --directory --owner 65532 --group 65532 /state /bridges /shim
COPY --from=build /opt/connector /opt/connector
COPY images/runner/health.toml /usr/share/connector/health.toml
ENV PATH=/opt/connector/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
WORKDIR /pipeline
USER 65532:65532
# A pipeline of two small programs runs through: processes can be started here, and messages get from one to the other.
HEALTHCHECK --interval=1m --timeout=20s --start-period=10s --retries=3 \
    CMD ["connector", "run", "--quiet", "/usr/share/connector/health.toml"]
ENTRYPOINT ["connector"]
CMD ["run"]
