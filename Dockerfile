# The server in a container that holds nothing but the program and the certificates of public authorities: no shell, no root.
#
#   docker build -t unstuck .
#   docker run -p 127.0.0.1:8080:8080 -v unstuck:/data -e UNSTUCK_PLAIN_HTTP=1 unstuck
#
# deploy/compose.yaml puts Caddy with a certificate in front of it.

# An image with Go, a shell and the certificates in /etc/ssl/certs.
ARG BUILD=golang:1.26
# hadolint ignore=DL3006
FROM ${BUILD} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /image/usr/bin/unstuck ./cmd/unstuck \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 700 /state/data \
    && install -d -m 1777 /state/tmp

FROM scratch
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /state/ /
ENV PATH=/usr/bin HOME=/tmp UNSTUCK_DATA=/data UNSTUCK_LISTEN=0.0.0.0:8080
USER 65532:65532
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/usr/bin/unstuck", "doctor", "--quiet"]
ENTRYPOINT ["/usr/bin/unstuck"]
CMD ["serve"]
