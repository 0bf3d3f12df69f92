# The image of podnotify: one static binary and nothing else.
#
#	make build && docker build -t podnotify:dev .
FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="podnotify" \
      org.opencontainers.image.description="turns what a daemon tells its init system into answers for probes" \
      org.opencontainers.image.source="https://github.com/podnotify/podnotify" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY LICENSE /LICENSE
COPY bin/podnotify /podnotify
# There is no /tmp to fall back to: mount something here that this user may write to.
ENV PODNOTIFY_RUN_DIR=/run/podnotify
# Where the daemon's uid is another, give podnotify that one: signals need it.
USER 65532:65532
EXPOSE 19119
ENTRYPOINT ["/podnotify"]
CMD ["sidecar"]
