#!/bin/sh
# The command of the image. Nothing is ever fetched from a registry while it runs.
exec bun --no-install /opt/ringway/src/main.ts "$@"
