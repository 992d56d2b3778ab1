# syntax=docker/dockerfile:1

# The image of every snapbridge service: one static choice of user, no shell, nothing but the binary and CA certificates.
# Written without a container engine at hand: the commands of docker-compose.yml are run by tests/it/compose.rs as plain
# processes, but this file itself has not been built by the project's own tests.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Connectors are compiled in. The target folder stays in the builder's cache, hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin snapbridge \
    && cp target/release/snapbridge /snapbridge \
    && mkdir /data

# glibc, libgcc and CA certificates; the user `nonroot` is 65532:65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /snapbridge /usr/local/bin/snapbridge
# A volume mounted here for the first time gets its owner from this folder.
COPY --from=build --chown=65532:65532 /data /var/lib/snapbridge
EXPOSE 8080
# The admin listener (health, metrics) is 8081; never publish it.
ENTRYPOINT ["/usr/local/bin/snapbridge"]
CMD ["--help"]
