# docker build -t entailor .
# docker run --rm --user "$(id -u)" -v "$PWD:/work" entailor compare --train train.csv --out runs/mine
# Models and downloads are kept in /cache; mount a volume there to keep them between runs.
FROM python:3.11-slim AS build
# A build of PyTorch without CUDA makes the image several gigabytes smaller:
# --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_EXTRA_INDEX_URL
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
RUN python -m venv /opt/entailor \
    && /opt/entailor/bin/pip install --no-cache-dir --constraint requirements.lock ".[serve,export,excel]"

FROM python:3.11-slim
# Whoever --user names can write: files in a mounted folder then belong to who asked for them.
RUN useradd --create-home --uid 1000 entailor && mkdir -m 1777 /cache /work
COPY --from=build /opt/entailor /opt/entailor
ENV PATH=/opt/entailor/bin:$PATH HOME=/cache ENTAILOR_CACHE=/cache/entailor HF_HOME=/cache/hub
USER entailor
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["entailor"]
CMD ["--help"]
