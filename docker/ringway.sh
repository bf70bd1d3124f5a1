#!/bin/sh
# The command of the image. Nothing is ever fetched from a registry while it runs.
# Bun would look once a second whether garbage is worth collecting, which is most of what processes that rest do.
export BUN_GC_TIMER_INTERVAL="${BUN_GC_TIMER_INTERVAL:-30000}"
exec bun --no-install /opt/ringway/src/main.ts "$@"
