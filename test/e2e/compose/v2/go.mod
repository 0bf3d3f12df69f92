// The docker compose v2 that the tests use, pinned: its go.mod excludes modules, so
// that "go install" refuses it. Nothing here is imported; build.sh builds it.
module github.com/podnotify/podnotify/test/e2e/compose/v2

go 1.24.9

require github.com/docker/compose/v2 v2.40.3
