# docker build -t slicemamba .
# docker run --rm --gpus all slicemamba doctor
# docker run --rm --gpus all --shm-size 8g -v /data:/data slicemamba run -d 501 -c 2d
# nnU-Net's own commands: docker run ... --entrypoint nnUNetv2_predict slicemamba ...
FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04

# versions follow the image's release of Ubuntu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# no root: the image's user 1000 owns the environment, so that files in /data belong to an ordinary user
USER 1000
WORKDIR /home/ubuntu
ENV VIRTUAL_ENV=/home/ubuntu/venv \
    PATH=/home/ubuntu/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results

COPY --chown=ubuntu:ubuntu . source
RUN python3 -m venv venv \
    && pip install --no-cache-dir ./source \
    && rm -rf source \
    && slicemamba register

ENTRYPOINT ["slicemamba"]
CMD ["--help"]
