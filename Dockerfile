# The image of podnotify: two static binaries, and nothing else. `make image` builds
# the same one, reproducibly and for all architectures, without docker.
#
#	make build && docker build -t podnotify/podnotify .
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="podnotify" \
      org.opencontainers.image.description="turns what a daemon tells its init system into answers for probes" \
      org.opencontainers.image.source="https://github.com/podnotify/podnotify" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# /run/podnotify: whoever runs podnotify may write there, as in /tmp. There is no
# other place: with a read-only root, mount something there.
COPY bin/run /run
COPY LICENSE cmd/podnotify/THIRD_PARTY bin/podnotify bin/podnotify-healthcheck /
ENV PODNOTIFY_RUN_DIR=/run/podnotify
# Where the daemon's uid is another, give podnotify that one: signals need it.
USER 65532:65532
EXPOSE 19119
ENTRYPOINT ["/podnotify"]
CMD ["sidecar"]
