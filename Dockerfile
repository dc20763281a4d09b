# syntax=docker/dockerfile:1
# One image for workers and the dashboard: `docker run IMAGE worker start STUDY`, `docker run IMAGE dashboard …`.
FROM python:3.12-slim

# PyTorch for CPUs; for NVIDIA GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    TUNER_HOME=/var/lib/tuner \
    TUNER_ARTIFACTS=/var/lib/tuner-artifacts

# Volumes inherit the owner of the folder they cover.
RUN useradd --uid 10001 --create-home tuner \
    && install --directory --owner=tuner --group=tuner "$TUNER_HOME" "$TUNER_ARTIFACTS"

WORKDIR /opt/tuner

# The dependencies alone, so that a change of code does not download PyTorch again.
COPY pyproject.toml README.md LICENSE ./
COPY tuner/__init__.py tuner/
RUN --mount=type=cache,target=/root/.cache/pip pip install --extra-index-url "$TORCH_INDEX" .

COPY tuner tuner
COPY search_spaces search_spaces
RUN pip install --no-deps --force-reinstall --no-cache-dir .

USER tuner
# tuner ends in good order on SIGTERM: it checkpoints and gives its trials back. Allow it 30 s: docker stop -t 30
ENTRYPOINT ["tuner"]
CMD ["--help"]
