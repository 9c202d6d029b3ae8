# The server: residency serve, as a user without rights, on a file system that it cannot change.
#
#   docker build --tag residency .
#
# For production name the base by digest: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
# pip reads its usual settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL) from build arguments: a mirror of the hospital's, or the index of
# torch's CPU builds, which are a tenth of the size of those for CUDA.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /build
RUN python -m venv /usr/local/lib/residency
ENV PATH=/usr/local/lib/residency/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --constraint constraints.txt ".[train,deid,serve,export]"

FROM ${PYTHON}
RUN groupadd --gid 10001 residency \
    && useradd --uid 10001 --gid residency --no-create-home --home-dir /tmp --shell /usr/sbin/nologin residency \
    && install --directory --owner residency --group residency --mode 0700 /data
COPY --from=build /usr/local/lib/residency /usr/local/lib/residency
ENV PATH=/usr/local/lib/residency/bin:$PATH \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["residency"]
CMD ["serve", "--help"]
